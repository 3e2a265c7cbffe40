-- Changes what an account may do. An empty argument leaves that setting as it is.
-- ARGV    user_id, overdraft_limit, suspended (0 | 1), low_credit_thresholds (units, comma-separated, "none"),
--         metadata (JSON text), rate_card, price_multiplier (millionths; "-" = what the levels above say), budgets, rate_limits
--         (changes, as state/editing.lua has them), pool (0 | 1: all below it draw on it), use_pools (0 | 1), velocity
--         (as state/breaker.lua has it)
-- Answers ok user_id overdraft_limit suspended low_credit_thresholds | too_many; then the balances | incomplete_rule rule
--         | no_rule rule | too_many_rules (behind ok stands all that the account may do then)
-- Writes  accounts, order, profiles, rates, rules, counters, outbox (account)

-- Sets what the account says of prices (state/price.lua). Answers members of its entry.
local function set_terms(user, card, multiplier)
  if card == '' and multiplier == '' then return '' end
  local field, detail = 'u ' .. user, ''
  local text = rate_writes[field]
  if text == nil then text = redis.call('HGET', RATES, field) end
  local own, times, of_plans = match(text or '- -', '^(%S+) (%S+)(.*)$')
  if card ~= '' then own, detail = card, ',"rate_card":' .. (card == '-' and 'null' or '"' .. card .. '"') end
  if multiplier ~= '' then
    times, detail = multiplier, detail .. ',"price_multiplier":' .. (multiplier == '-' and 'null' or multiplier)
  end
  rate_writes[field] = (own ~= '-' or times ~= '-' or of_plans ~= '') and own .. ' ' .. times .. of_plans
  return detail
end

-- All that the account may do now, as one word behind the answer, so that a repeated call is told what the first one was:
-- " &rate_card,price_multiplier|charged,held,holds,requests,pool,use_pools|metadata", with ";" and a rule for each behind the
-- counters, and the blanks of the JSON as \u0020.
local function whole(a)
  local field = 'u ' .. a.user
  local terms, metadata = rate_writes[field], profile_writes[a.user]
  if terms == nil then terms = redis.call('HGET', RATES, field) end
  if metadata == nil then metadata = redis.call('HGET', PROFILES, a.user) end
  local level = levels.at(a.user)
  local counted = level and format('%d,%d,%d,%d,%d,%d', level.charged, level.reserved, level.holds, level.requests,
    level.is_pool and 1 or 0, level.is_apart and 0 or 1) or '0,0,0,0,0,1'
  return format(' &%s|%s%s|%s', gsub(terms or '- -', ' ', ','), counted, level and levels.listed(level) or '',
    (gsub(metadata or 'null', ' ', '\\u0020')))
end

function operations.configure(i)
  local a = figures_of(account_of(ARGV[i]))
  if levels.at(a.user) then admission.settle_due() end -- what the answer tells of is held now, not what has ended
  local limit, suspended, thresholds, metadata = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local names = paths.levels_of(a.user)
  local plan, refusal
  if names[#names] == a.user and suspended .. concat({ unpack(ARGV, i + 7, i + 11) }) ~= '' then
    plan, refusal = levels.planned(a.user, ARGV[i + 7], ARGV[i + 8], suspended, ARGV[i + 9], ARGV[i + 10], ARGV[i + 11])
  end
  if refusal then return refusal end
  if not admit(a) then return '0 too_many' .. balances(a) end
  if plan then a.has_rules = levels.adopt(plan) end
  if limit ~= '' then a.overdraft_limit = limit + 0 end
  if suspended ~= '' then a.suspended = suspended == '1' and 's' or '-' end
  if thresholds ~= '' then set_thresholds(a, thresholds) end
  change_account(a)
  local detail = settings_of(a) .. set_terms(a.user, ARGV[i + 5], ARGV[i + 6])
  if metadata ~= '' then
    profile_writes[a.user] = metadata
    detail = detail .. ',"profile":' .. metadata
  end
  local answer = format('ok %s %d %s %s', a.user, a.overdraft_limit, a.suspended, bare_thresholds(a.thresholds))
    .. balances(a) .. whole(a)
  if current_key ~= '' then detail = format('%s,"answered":"%s"', detail, (gsub(answer, '[\\"]', '\\%0'))) end
  record(a, 'account', 0, {}, now, detail, current_key, current_extra)
  return answer
end
