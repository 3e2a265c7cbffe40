-- Holds what a usage costs at most now (state/price.lua), as operations/reserve.lua does. The hold keeps the price, which
-- stands behind the answer.
-- ARGV    user_id, reservation_id, usage, ttl_ms, chosen (1 | 0 | request), at_end (release | charge | confirm), amount ("" |
--         what is held where no card prices the user, or no model is named)
-- Answers ok user_id reservation_id amount expires_at_ms expires_in_ms | insufficient user_id required violations
--         | budget_reached user_id required violations | suspended violations | rate_limited violations | too_many; then the
--         balances | key_reused | outbox_full | finished state user_id charged | unknown_model model | unpriced dimension
--         | unbounded | uncountable | rates_missing | model_not_allowed model
-- Writes  accounts, grants, order, holds, agenda, due, counters, recent, outbox (reserve, extend)

-- What a request that asks again has on hold already: the price of then. Nil where it has nothing, or asks for something else.
local function price_of_then(id, user, usage, amount)
  local hold = hold_of(id)
  if not hold or hold.user ~= user then return nil end
  if not hold.price then return amount ~= '' and hold.amount == amount + 0 and hold.amount or nil end
  local _, text = prices.to_hold(rates.of_hold(hold), usage, amount, api_keys.models)
  if text == hold.price then return hold.amount, text end
end

function operations.reserve_usage(i)
  local user, id, usage, chosen, otherwise = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4], ARGV[i + 6]
  local first = chosen == '1' and recent('c ' .. id)
  if first then return replay(first) end
  local a = account_of(user)
  local amount, text
  if chosen == 'request' then amount, text = price_of_then(id, user, usage, otherwise) end
  if not amount then
    local refused = admission.refuse_suspended(a)
    if refused then return refused end
    amount, text = prices.to_hold(rates.of(user), usage, otherwise, api_keys.models)
  end
  if not amount then return text end
  ARGV[i + 2] = format('%d', amount)
  if not text then return operations.reserve(i) end
  prices.carry(text)
  local answer = operations.reserve(i)
  if sub(answer, 1, 3) == 'ok ' then hold_of(id).price = text end
  return prices.behind(answer, text, 'c ' .. id)
end
