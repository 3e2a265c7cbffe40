-- Gives a whole reservation back.
-- ARGV    reservation_id
-- Answers ok user_id reservation_id transaction_id released forfeited; then the balances
--         | not_found | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, recent, outbox (release, grant_expired)
function operations.release(i)
  local id = ARGV[i]
  local hold = hold_of(id)
  local held = hold and pools.held(hold)
  hold = hold_of(id) -- settling may have ended it
  if not hold then
    local past = finished(id)
    if not past then return '0 not_found' end
    if past.state == 'released' then return '1 ' .. past.answer end
    return refuse_finished(past)
  end
  local a, total = held[1].a, pools.total(held)
  local answer = pools.give_back('release', held, now, '', function(transaction)
    return format('ok %s %s %s %d %d', a.user, id, transaction, total, pools.forfeited(held)) .. pools.balances(a)
      .. pools.told_after(a)
  end, current_key, current_extra)
  remember_end(hold, 'released', 0, 0, now, answer, total)
  return answer
end
