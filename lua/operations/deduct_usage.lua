-- Spends what a usage costs now (state/price.lua), as operations/deduct.lua does; the price stands behind the answer.
-- ARGV    user_id, usage, shortfall (reject | partial | overdraft)
-- Answers ok user_id transaction_id amount taken uncovered | insufficient user_id required | suspended | overflow;
--         then the balances | outbox_full | unknown_model model | unpriced dimension | uncountable | rates_missing
--         | model_not_allowed model
-- Writes  accounts, grants, order, agenda, due, outbox (deduct)
function operations.deduct_usage(i)
  local a = account_of(ARGV[i])
  if a.suspended ~= '-' then return '0 suspended' .. balances(a) end
  local amount, text = prices.of(rates.of(a.user), ARGV[i + 1], false, api_keys.models)
  if not amount then return text end
  prices.carry(text)
  ARGV[i + 1] = format('%d', amount)
  return prices.behind(operations.deduct(i), text, '')
end
