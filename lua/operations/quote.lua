-- Tells what a reserve would hold now, and what would become of it; changes nothing.
-- ARGV    user_id, usage ("" = the amount is known), amount ("" = what the usage costs; beside a usage as of reserve_usage.lua)
-- Answers ok user_id amount would (ok, or the word of its refusal) violations; then the balances | unknown_model model
--         | unpriced dimension | unbounded | uncountable | rates_missing | model_not_allowed model
function operations.quote(i)
  local a, usage, amount, text = account_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2], nil
  if usage ~= '' then
    amount, text = prices.to_hold(rates.of(a.user), usage, amount, api_keys.models)
    if not amount then return text end
  end
  amount = amount + 0
  local ask = { is_new = true, amount = amount, required = amount, requests = 1, holds = 1, purpose = only.purpose(i) }
  ask.purpose.price = text
  ask.spendable = pools.available(pools.payers_of(a, ask.purpose))
  ask.short = amount > ask.spendable
  local would, violations = admission.would_be(a, ask)
  local answer = format('ok %s %d %s %s', a.user, amount, would, violations) .. balances(a, ask.purpose)
    .. pools.told_of(a, amount, ask.purpose)
    .. (levels and levels.figures(a.user) or '')
  return text and prices.behind(answer, text, '') or answer
end
