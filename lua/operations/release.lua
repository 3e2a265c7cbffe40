-- Gives a whole reservation back.
-- ARGV    reservation_id
-- Answers ok user_id reservation_id transaction_id released forfeited; then the balances
--         | not_found | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, recent, outbox (release, grant_expired)
function operations.release(i)
  local id = ARGV[i]
  local hold = hold_of(id)
  local a = hold and account_of(hold.user)
  hold = hold_of(id) -- settling may have ended it
  if not hold then
    local past = finished(id)
    if not past then return '0 not_found' end
    if past.state == 'released' then return '1 ' .. past.answer end
    return refuse_finished(past)
  end
  local draws, forfeits, forfeited = end_hold(a, hold, 0, true)
  local detail = format('"reservation_id":"%s","forfeited":%d', id, forfeited)
  local transaction = record(a, 'release', hold.amount, draws, now, detail, current_key, current_extra)
  forfeit(a, forfeits, now)
  local answer = format('ok %s %s %s %d %d', a.user, id, transaction, hold.amount, forfeited) .. balances(a)
  remember_end(hold, 'released', 0, 0, now, answer)
  return answer
end
