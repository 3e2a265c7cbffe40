-- Settles a reservation for what a usage costs by the price that its hold keeps (state/price.lua), as operations/commit.lua
-- does; the price stands behind the answer.
-- ARGV    reservation_id, usage (its model may be another one of the same version), over (as of commit.lua), shortfall,
--         amount ("" | what is charged where the hold was not priced)
-- Answers ok user_id reservation_id transaction_id charged released forfeited uncovered late (then, where a budget cut it,
--         "!" and its id) | insufficient user_id required violations (the hold stays)
--         | budget_reached user_id required violations (likewise) | overflow; then the balances
--         | not_found | finished state user_id charged | not_priced | unknown_model model | unpriced dimension | uncountable
--         | rates_missing | model_not_allowed model
-- Writes  accounts, grants, order, holds, agenda, due, counters, recent, outbox (commit, deduct, grant_expired)
function operations.commit_usage(i)
  local id = ARGV[i]
  local hold = hold_of(id)
  if hold then account_of(hold.user) end -- settles; the hold may end by that
  hold = hold_of(id)
  local past = not hold and finished(id)
  if not hold and not past then return '0 not_found' end
  local kept = hold or past
  if not kept.price and ARGV[i + 4] ~= '' then
    ARGV[i + 1] = ARGV[i + 4]
    return operations.commit(i)
  end
  local is_over = past and (past.state == 'released' or past.state == 'expired' and now - past.ended > late_commit_grace_ms)
  if is_over or past and past.state == 'committed' and not kept.price then return refuse_finished(past) end
  if not kept.price then return '0 not_priced' end
  local amount, text = prices.of(rates.of_hold(kept), ARGV[i + 1], false, api_keys.models_of(kept))
  if not amount then return text end
  prices.carry(text)
  ARGV[i + 1] = format('%d', amount)
  return prices.behind(operations.commit(i), text, 'r ' .. id)
end
