-- The plain case of operations/commit.lua: no more than is held.
-- Answers c user_id seq charged released available reserved
function plain.commit(i)
  local id = ARGV[i]
  local amount, charged, key = end_plain_hold(id, ARGV[i + 1] ~= '' and ARGV[i + 1] + 0 or nil)
  if not amount then return end
  local detail = format('"reservation_id":"%s","released":%d,"forfeited":0,"uncovered":0,"late":false', id, amount - charged)
  if key then detail = format('%s,"key_id":"%s"', detail, match(key, '^[^,]+')) end
  book('commit', charged, detail)
  local answer = format('ok %s %s %s %d %d 0 0 0 %d %d 0', user, id, transaction_of(seq), charged, amount - charged, available,
    reserved)
  remember_plain_end(id, 'committed', amount, charged, answer, key)
  return format('c %s %d %d %d %d %d', user, seq, charged, amount - charged, available, reserved)
end
