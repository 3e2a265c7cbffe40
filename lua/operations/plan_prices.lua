-- Takes over what the plan of a subscription says of prices (state/rates.lua). Older news than what is there changes nothing.
-- ARGV    user_id, plan_group, version (of the subscription), rate_card, price_multiplier (millionths; "-" = not said),
--         until_ms (0 = not as things stand)
-- Answers ok user_id
-- Writes  rates
function operations.plan_prices(i)
  local user, group, version = ARGV[i], ARGV[i + 1], ARGV[i + 2] + 0
  local field, words = 'u ' .. user, {}
  local text = rate_writes[field]
  if text == nil then text = redis.call('HGET', RATES, field) end
  local own, of_plans = match(text or '- -', '^(%S+ %S+)(.*)$')
  for word in gmatch(of_plans, '%S+') do
    local name, known = match(word, '^([^,]+),(%d+),')
    if name ~= group then
      words[#words + 1] = word
    elseif known + 0 >= version then
      return 'ok ' .. user
    end
  end
  words[#words + 1] = format('%s,%d,%s,%s,%s', group, version, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
  table.sort(words, before)
  rate_writes[field] = own .. ' ' .. concat(words, ' ')
  return 'ok ' .. user
end
