-- The plain case of operations/release.lua.
function plain.release(i)
  local id = ARGV[i]
  local amount = end_plain_hold(id, 0)
  if not amount then return end
  book('release', amount, 0, format('"reservation_id":"%s","forfeited":0', id))
  local answer = format('ok %s %s %s %d 0 %d %d 0', user, id, head, amount, available, reserved)
  remember_plain_end(id, 'released', amount, 0, answer)
  return answer
end
