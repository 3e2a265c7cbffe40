-- The end of a hold in the plain case: all of it is held of the front grant, to which the rest returns.

-- Ends a hold of which `charge` (nil: all) stays taken. Answers its amount and what was charged; nil where it is not plain.
local function end_plain_hold(id, charge)
  local whose, amount, ends, part_of =
    match(hold_texts[id] or '', '^(%S+) (%d+) (%d+) %d+[cp]? (%S+) %d+$') -- one draw is the whole hold
  if not whose or not take(whose) or part_of ~= grant then return nil end
  amount = amount + 0
  charge = charge or amount
  if charge > amount then return nil end
  local back = amount - charge
  available, reserved, hold_count = available + back, reserved - amount, hold_count - 1
  remaining, held = remaining + back, held - amount
  agenda_writes[format('%s %013d h %s', user, ends, id)] = false
  hold_texts[id], plain_holds[id] = false, false
  return amount, charge
end

-- Remembers how it ended, with the answer that a repeated call is to get (state/hold.lua has the format), by its key too.
local function remember_plain_end(id, state, amount, charged, answer)
  recent_writes['r ' .. id] = format('%s %s %d %d %d %d %s', state, user, amount, charged, charged, now, answer)
  if current_key ~= '' then remember_answer('k ', current_key, current_fingerprint, answer) end
end
