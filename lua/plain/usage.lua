-- The plain cases of operations/{deduct,reserve,commit}_usage.lua: those of the operation that does the rest for each, with the
-- price that it carries. What a key is for some models of goes the full way.
-- Answers D seq amount available reserved $price | R expires_at_ms amount available reserved | R … $price
--         | C user_id seq charged released available reserved $price | as commit.lua

local is_without_cards = redis.call('HLEN', RATES) < 2 -- one field is none (state/sentinel.lua)

-- The terms of all users of the batch, read in one call.
if not is_without_cards then
  local names, place = { 'a default' }, at
  for _ = 1, count do
    if ARGV[place] == 'deduct_usage' or ARGV[place] == 'reserve_usage' then
      for _, name in ipairs(rates.fields_of(ARGV[place + 3])) do names[#names + 1] = name end
    end
    place = place + 2 + ARGV[place + 1]
  end
  rates.look_up(names)
end

-- Runs what does the rest with an amount in the place of its argument `n`, the price in the row; nil, and nothing is changed,
-- where that is not plain.
local function with_amount(name, i, n, amount, text)
  local usage, extra = ARGV[n], current_extra
  ARGV[n] = amount
  if text then prices.carry(text) end
  local answer = plain[name](i)
  if not answer then ARGV[n], current_extra = usage, extra end
  return answer
end

-- The price stands behind what a repeated call is told, too.
local function price_behind(field, text)
  if recent_writes[field] then recent_writes[field] = recent_writes[field] .. ' $' .. text end
end

function plain.deduct_usage(i)
  if api_keys.models then return end
  local amount, text = prices.of(rates.of(ARGV[i]), ARGV[i + 1], false)
  if not amount or not with_amount('deduct', i, i + 1, format('%d', amount), text) then return end
  if current_key ~= '' then price_behind('k ' .. current_key, text) end
  return format('D %d %d %d %d $%s', seq, amount, available, reserved, text)
end

function plain.reserve_usage(i)
  if api_keys.mark ~= '' then return end
  local id = ARGV[i + 1]
  local amount, text = ARGV[i + 6], nil
  if not is_without_cards or amount == '' then
    amount, text = prices.to_hold(rates.of(ARGV[i]), ARGV[i + 2], amount)
  end
  local answer = amount and with_amount('reserve', i, i + 2, format('%d', amount), text)
  if not answer then return end
  answer = format('R %s %d %d %d', match(answer, '^r (%d+)'), amount, available, reserved)
  if not text then return answer end
  hold_texts[id] = hold_texts[id] .. ' $' .. text
  plain_holds[id] = hold_texts[id]
  if ARGV[i + 4] == '1' then price_behind('c ' .. id, text) end
  if current_key ~= '' then price_behind('k ' .. current_key, text) end
  return answer .. ' $' .. text
end

function plain.commit_usage(i)
  local id = ARGV[i]
  local held = hold_texts[id]
  if not held then return end
  if not string.find(held, '$', 1, true) then
    return ARGV[i + 4] ~= '' and with_amount('commit', i, i + 1, ARGV[i + 4]) or nil
  end
  local own, price = match(held, '^([^#$]+) %$(%S+)$')
  if not own then return end
  local amount, text = prices.of(rates.of_hold({ price = price }), ARGV[i + 1], false)
  if not amount then return end
  hold_texts[id], price_kept, price_told = own, price, text
  local answer = with_amount('commit', i, i + 1, format('%d', amount), text)
  price_kept, price_told = nil, nil
  if answer then return 'C' .. sub(answer, 2) .. ' $' .. text end
  hold_texts[id] = held
end
