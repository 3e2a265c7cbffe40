-- The plain case of operations/release.lua.
-- Answers l user_id seq released available reserved
function plain.release(i)
  local id = ARGV[i]
  local amount, _, key = end_plain_hold(id, 0)
  if not amount then return end
  book('release', amount, format('"reservation_id":"%s","forfeited":0', id))
  local answer = format('ok %s %s %s %d 0 %d %d 0', user, id, transaction_of(seq), amount, available, reserved)
  remember_plain_end(id, 'released', amount, 0, answer, key)
  return format('l %s %d %d %d %d', user, seq, amount, available, reserved)
end
