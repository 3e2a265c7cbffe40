-- Spends what a usage costs now (state/price.lua), as operations/deduct.lua does; the price stands behind the answer.
-- ARGV    user_id, usage, shortfall (reject | partial | overdraft), amount ("" | what is spent where there is no card)
-- Answers ok user_id transaction_id amount taken uncovered (then, where a budget cut it, "!" and its id)
--         | insufficient user_id required violations | budget_reached user_id required violations | suspended violations
--         | rate_limited violations | overflow; then the balances | outbox_full | unknown_model model
--         | unpriced dimension | uncountable | rates_missing | model_not_allowed model
-- Writes  accounts, grants, order, agenda, due, counters, outbox (deduct)
function operations.deduct_usage(i)
  local a = account_of(ARGV[i])
  local refused = ARGV[i + 2] ~= 'owed' and admission.refuse_suspended(a)
  if refused then return refused end
  local basis = rates.of(a.user)
  local amount, text = prices.of(basis, ARGV[i + 1], false, api_keys.models)
  if not amount and ARGV[i + 3] ~= '' and sub(text, 1, 15) == '0 unknown_model' and rates.is_without_card(basis) then
    ARGV[i + 1] = ARGV[i + 3]
    return operations.deduct(i)
  end
  if not amount then return text end
  prices.carry(text)
  ARGV[i + 1] = format('%d', amount)
  return prices.behind(operations.deduct(i), text, '')
end
