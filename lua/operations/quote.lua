-- Tells what a reserve would hold now, and what would become of it; changes nothing.
-- ARGV    user_id, usage ("" = the amount is known), amount ("" = what the usage costs)
-- Answers ok user_id amount would (ok | insufficient | suspended); then the balances | unknown_model model
--         | unpriced dimension | unbounded | uncountable | rates_missing | model_not_allowed model
function operations.quote(i)
  local a, amount, text = account_of(ARGV[i]), ARGV[i + 2], nil
  if amount == '' then
    amount, text = prices.of(rates.of(a.user), ARGV[i + 1], true, api_keys.models)
    if not amount then return text end
  end
  local would = a.suspended ~= '-' and 'suspended' or amount + 0 > a.available and 'insufficient' or 'ok'
  local answer = format('ok %s %d %s', a.user, amount, would) .. balances(a)
  return text and prices.behind(answer, text, '') or answer
end
