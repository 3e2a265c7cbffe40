-- The end of a hold in the plain case: all of it is held of the front grant, to which the rest returns.

-- Ends a hold of which `charge` (nil: all) stays taken. Answers its amount, what was charged and the key that it keeps, if any;
-- nil where it is not plain.
local function end_plain_hold(id, charge)
  local text, key = hold_texts[id] or '', nil
  local whose, amount, ends, part_of = match(text, '^(%S+) (%d+) (%d+) %d+[cp]? (%S+) %d+$') -- one draw is the whole hold
  if not whose then whose, amount, ends, part_of, key = match(text, '^(%S+) (%d+) (%d+) %d+[cp]? (%S+) %d+ #(%S+)$') end
  if not whose or not take(whose) or part_of ~= grant then return nil end
  amount = amount + 0
  charge = charge or amount
  if charge > amount then return nil end
  local back = amount - charge
  available, reserved, hold_count = available + back, reserved - amount, hold_count - 1
  remaining, held = remaining + back, held - amount
  agenda_writes[format('%s %013d h %s', user, ends, id)] = false
  hold_texts[id], plain_holds[id] = false, false
  return amount, charge, key
end

-- Remembers how it ended, with the answer that a repeated call is to get (state/hold.lua has the format), by its key too.
local function remember_plain_end(id, state, amount, charged, answer, key)
  if price_told then answer = answer .. ' $' .. price_told end
  local kept = key and '#' .. key .. ' ' .. answer or answer
  if price_kept then kept = '$' .. price_kept .. ' ' .. kept end
  recent_writes['r ' .. id] = format('%s %s %d %d %d %d %s', state, user, amount, charged, charged, now, kept)
  if current_key ~= '' then remember_answer('k ', current_key, current_fingerprint, answer) end
end
