-- Holds and their parts (state/pool.lua): what all of them hold, and what they hold more.

pools.NUMBER_OF_PART = '^(.*)~(%d)$'
pools.ID_MAX = 126 -- of a hold that has parts: an id has 128 characters

-- Adds draws {grant, amount, ...} to a hold.
function pools.add_draws(hold, draws)
  for i = 1, #draws, 2 do
    hold.draws[#hold.draws + 1], hold.draws[#hold.draws + 2] = draws[i].id, draws[i + 1]
  end
  hold_writes[hold.id] = hold
end

function pools.prolong_one(a, hold, ends)
  unschedule(a, hold.ends, 'h', hold.id)
  hold.ends = ends
  schedule(a, ends, 'h', hold.id)
  hold_writes[hold.id] = hold
end

-- How an open hold stands, as members of the entry that makes or changes it.
function pools.format_hold(hold, is_new)
  local detail = format('"reservation_id":"%s","expires_at":%d', hold.id, hold.ends)
  if not is_new then return format('%s,"held":%d', detail, hold.amount) end
  return (hold.charged_at_end or hold.unconfirmed) and detail .. ',"at_end":"charge"' or detail
end

-- The open hold that a hold is a part of; itself where it is none, or is left over of one.
function pools.whole(hold)
  local id = hold.path and match(hold.id, pools.NUMBER_OF_PART)
  return id and hold_of(id) or hold
end

-- What each holds of a hold, the path first: accounts, settled, and their holds. Settling may have ended it.
function pools.held(hold)
  local held = { { a = account_of(hold.user), hold = hold, before = hold.amount } }
  for number in gmatch(hold.parts or '', '%d') do
    local part = hold_of(hold.id .. '~' .. number)
    if part then held[#held + 1] = { a = account_of(part.user), hold = part, before = part.amount } end
  end
  return held
end

function pools.total(held)
  local sum = 0
  for _, one in ipairs(held) do sum = sum + one.hold.amount end
  return sum
end

-- A part of a hold that a pool has taken on from now.
function pools.begin_part(hold, a)
  local names = paths.levels_of(hold.user)
  for number, name in ipairs(names) do
    if name == a.user then
      local part = {
        id = format('%s~%d', hold.id, number), user = a.user, path = hold.user, amount = 0, ends = hold.ends, created = now,
        charged_at_end = hold.charged_at_end, unconfirmed = hold.unconfirmed, draws = {},
      }
      hold.parts = format('%s%d', hold.parts and hold.parts .. ',' or '', number)
      holds[part.id], hold_writes[hold.id] = part, hold
      schedule(a, part.ends, 'h', part.id)
      return part
    end
  end
end

-- Who pays for a hold of that id: an id that leaves no room for those of its parts has none.
function pools.of_hold(a, id, purpose)
  return #id <= pools.ID_MAX and pools.payers_of(a, purpose) or { a, purpose = purpose }
end

-- Holds more: `held` are the holds that there are, `shares` what each pays of it, `is_new` where all of it begins. Answers the
-- rows.
function pools.hold_more(held, shares, is_new)
  local hold, rows_of = held[1].hold, {}
  for n, one in ipairs(shares) do
    local own
    for _, other in ipairs(held) do if other.a == one.a then own = other.hold end end
    one.paid = one.amount
    if n == 1 or one.amount > 0 then
      one.purpose = shares.purpose
      rows_of[#rows_of + 1] = pools.held_row(hold.user, own or pools.begin_part(hold, one.a), one, is_new or not own)
    end
  end
  return rows_of
end

-- Holds what one pays of it, and answers the row of that.
function pools.held_row(path, hold, one, is_new)
  local draws = draw(one.a, one.amount, true, one.purpose)
  hold.amount = hold.amount + one.amount
  pools.add_draws(hold, draws)
  return {
    kind = is_new and 'reserve' or 'extend', a = one.a, amount = one.amount, draws = draws,
    detail = pools.format_hold(hold, is_new),
    counts = (is_new or one.amount > 0) and function()
      if is_new then levels.hold(path, hold) else levels.hold_more(path, hold, one.amount) end
    end,
  }
end

-- Lets a hold and its parts end at another time. Answers the answer.
function pools.prolong(held, ends, key, extra)
  local rows_of, first = {}, held[1]
  for n, one in ipairs(held) do
    pools.prolong_one(one.a, one.hold, ends)
    rows_of[n] = { kind = 'extend', a = one.a, amount = 0, draws = {}, detail = pools.format_hold(one.hold), paid = 0 }
  end
  return pools.record(first.hold.user, rows_of, now, function()
    return format('ok %s %s %d %d %d', first.hold.user, first.hold.id, pools.total(held), ends, ends - now) .. balances(first.a)
  end, key, extra)
end
