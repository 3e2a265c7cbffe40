-- The outbox: what this call changed, transaction by transaction, each naming the one before it (state/writing.lua writes it).
--
-- A row is one JSON array (meter/engine/outbox.py reads it):
--   1 kind  2 user_id  3 amount  4 available  5 reserved  6 debt, all three after  7 draws [[grant_id, amount, remaining after,
--   reserved after], ...], then, where there is something to tell: 8 operation_id (the caller's key, or "")  9 detail {members
--   by kind, then the caller's}  10 created_at_ms, where that is not the time of the batch
-- Without debt and with one draw of the whole amount its parts may be
--   1 kind  2 user_id  3 amount  4 available  5 reserved  6 grant_id  7 remaining after  8 reserved after, then 8 and 9 as above

local function format_draws(draws)
  local parts = {}
  for i = 1, #draws, 2 do
    local g = draws[i]
    parts[#parts + 1] = format('["%s",%d,%d,%d]', g.id, draws[i + 1], g.remaining, g.reserved)
  end
  return concat(parts, ',')
end

-- The terms of a grant, as members of the row that makes it.
local function format_terms(g)
  return format('"priority":%d,"effective_at":%d,"expires_at":%d,"source":"%s"', g.priority, g.effective, g.expires,
    g.source) .. (g.only and ',"only":"' .. g.only .. '"' or '')
end

-- What an account has of restricted grants, as members of its entry; of what returned to grants that have ended, how much of
-- `forfeited` was restricted. It is booked right behind.
function only.of_row(a, kind)
  local detail = a.restrictions[1] and format('"restricted":%d', only.free(a)) or ''
  local lost = kind ~= 'grant_expired' and a.forfeiting_only or 0
  return lost > 0 and format('%s,"forfeited_restricted":%d', detail, lost) or detail
end

-- Books one transaction of the account as it now stands. Answers its transaction_id.
-- What a caller asked for carries its key, the fingerprint of the body and the members that the caller gave.
local function record(a, kind, amount, draws, time, detail, key, extra)
  if a.thresholds ~= '-' or a.available == 0 then detail = join(detail, alerts_of(a, kind, amount, draws)) end
  if a.restrictions[1] then detail = join(detail, only.of_row(a, kind)) end
  if levels and levels.touched[1] then detail = join(detail, levels.told()) end
  seq = seq + 1
  if key and current_fingerprint ~= '' then extra = join(format('"fingerprint":"%s"', current_fingerprint), extra) end
  if extra then detail = join(detail, extra) end
  local besides = format(',"%s",{%s}', key or '', detail)
  if time ~= now then
    besides = format('%s,%d', besides, time)
  elseif besides == ',"",{}' then
    besides = ''
  end
  rows[#rows + 1] = format('["%s","%s",%d,%d,%d,%d,[%s]%s]', kind, a.user, amount, a.available, a.reserved, a.debt,
    format_draws(draws), besides)
  return transaction_of(seq)
end

-- Whether the store has all that was booked up to that time. Where nothing was ever flushed there is none to wait for.
local function is_stored(time)
  if flushed == 0 or flushed >= seq then return true end
  return time <= recent_since and flushed >= (redis.call('HGET', META, 'recent_seq') or '0') + 0
end
