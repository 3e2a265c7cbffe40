-- The caller of a reserve was told that it has it: what it asked for its end holds from now on (state/hold.lua, "p").
-- ARGV    reservation_id
-- Answers ok user_id reservation_id | not_found | finished state user_id charged
-- Writes  holds
function operations.confirm(i)
  local id = ARGV[i]
  local hold = hold_of(id)
  if hold then account_of(hold.user) end
  hold = hold_of(id) -- settling may have ended it
  if not hold then
    local past = finished(id)
    return past and refuse_finished(past) or '0 not_found'
  end
  if hold.unconfirmed then
    for _, one in ipairs(pools.held(hold)) do
      one.hold.charged_at_end, one.hold.unconfirmed = true, false
      hold_writes[one.hold.id] = one.hold
    end
  end
  return format('ok %s %s', hold.user, id)
end
