-- The plain case of operations/reserve.lua: an id that nobody has used.
-- Answers r expires_at_ms available reserved
function plain.reserve(i)
  local id, amount, ttl_ms, chosen, at_end = ARGV[i + 1], ARGV[i + 2] + 0, ARGV[i + 3] + 0, ARGV[i + 4], ARGV[i + 5]
  if amount == 0 or outbox_full() or not take(ARGV[i]) then return end
  if current_extra ~= '' and string.find(ARGV[i - 1], '\n"tags":"', 1, true) then return end -- the hold keeps them
  remaining, hold_count = remaining - amount, hold_count + 1
  if remaining <= 0 or hold_count > reservations_max then return end
  if hold_texts[id] or chosen ~= '0' and (redis.call('HGET', HOLDS, id) or recent('r ' .. id)) then return end
  if chosen == '1' and recent('c ' .. id) then return end

  local ends = now + ttl_ms
  local ends_text = format('%013d', ends)
  if next_due == '0' or ends < next_due + 0 then next_due, plain_due[user] = ends_text, ends end
  agenda_writes[user .. ' ' .. ends_text .. ' h ' .. id] = true
  available, reserved, held = available - amount, reserved + amount, held + amount
  local mark = at_end == 'charge' and 'c' or at_end == 'confirm' and 'p' or ''
  hold_texts[id] = format('%s %d %d %d%s %s %d%s', user, amount, ends, now, mark, grant, amount, api_keys.mark)
  plain_holds[id] = hold_texts[id]
  local detail = format('"reservation_id":"%s","expires_at":%d', id, ends)
  if at_end ~= 'release' then detail = detail .. ',"at_end":"charge"' end
  book('reserve', amount, detail)
  if chosen == '1' or current_key ~= '' then
    local answer = format('ok %s %s %d %d %d %d %d 0', user, id, amount, ends, ttl_ms, available, reserved)
    if chosen == '1' then remember_answer('c ', id, current_fingerprint, answer) end
    if current_key ~= '' then remember_answer('k ', current_key, current_fingerprint, answer) end
  end
  return format('r %d %d %d', ends, available, reserved)
end
