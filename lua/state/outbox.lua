-- The outbox: one entry for every change, in order, each naming the one before it.
--
-- An entry is one JSON array, in this order (meter/engine/outbox.py reads it):
--   1 version  2 epoch  3 seq  4 prev (transaction_id of seq - 1)  5 transaction_id  6 operation_id (the caller's key, or "")
--   7 kind  8 user_id  9 amount  10 draws [[grant_id, amount, remaining after, reserved after], ...]
--   11 available  12 reserved  13 debt, all three after  14 created_at_ms  15 detail {members by kind, then the caller's}

local ENTRY_FORMAT = '[1,%s,%d,"%s","%s","%s","%s","%s",%d,[%s],%d,%d,%d,%d,{%s}]'
local DRAW_FORMAT = '["%s",%d,%d,%d]'

local function format_draws(draws)
  local parts = {}
  for i = 1, #draws, 2 do
    local g = draws[i]
    parts[#parts + 1] = format(DRAW_FORMAT, g.id, draws[i + 1], g.remaining, g.reserved)
  end
  return concat(parts, ',')
end

-- The terms of a grant, as members of the entry that makes it.
local function format_terms(g)
  return format('"priority":%d,"effective_at":%d,"expires_at":%d,"source":"%s"', g.priority, g.effective, g.expires,
    g.source)
end

-- Books one transaction of the account as it now stands. Answers its transaction_id.
-- What a caller asked for carries its key, the fingerprint of the body and the members that the caller gave.
-- The id names the sender and batch that made it, so that two histories of one seq never share an id.
local function record(a, kind, amount, draws, time, detail, key, extra)
  if a.thresholds ~= '-' or a.available == 0 then detail = join(detail, alerts_of(a, kind, amount)) end
  seq = seq + 1
  local prev = head
  head = format('%s-%d-%s-%d', partition, seq, sender, batch)
  if key and current_fingerprint ~= '' then extra = join(format('"fingerprint":"%s"', current_fingerprint), extra) end
  if extra then detail = join(detail, extra) end
  entries[#entries + 1] = format('%d-0', seq)
  entries[#entries + 1] = format(ENTRY_FORMAT, epoch, seq, prev, head, key or '', kind, a.user, amount,
    format_draws(draws), a.available, a.reserved, a.debt, time, detail)
  return head
end

-- Whether the store has all that was booked up to that time. Where nothing was ever flushed there is none to wait for.
local function is_stored(time)
  if flushed == 0 or flushed >= seq then return true end
  return time <= recent_since and flushed >= (redis.call('HGET', META, 'recent_seq') or '0') + 0
end
