-- Holds: what open reservations keep, and from which grants. A finished hold moves to the recent hash.
-- open      "user_id amount ends_at created grant_id amount grant_id amount ..."; a "c" after created: what is held at
--           its end is charged, not released; a "p": so it will be, once `confirm` says so; "@seq" behind: of its reserve,
--           where a level counts it (state/counting.lua)
-- finished  "state user_id amount charged requested ended_at answer"; state is committed, released or expired
-- one of a path that pools pay for too has "&" and the numbers of its parts behind its draws, a part "^" and the path
-- (state/pool.lua)
-- one that was priced (state/price.lua) has " $price" at its end while it is open, then "$price " before its answer; of an API
-- key that it was asked for by, " #key_id" behind that, then "#key_id ", with ",model,model" where the key is for some only; one
-- that is for something has " ~tag,tag" in front of these, then "~tag,tag "
local pools = {} -- of accounts that pay for what is below them (state/pool.lua)
local holds = {} -- reservation_id -> hold, or false
local hold_writes = {} -- reservation_id -> hold to write, or false to remove

local function hold_of(id)
  local hold = holds[id]
  if hold ~= nil then return hold end
  local text = hold_texts[id]
  if text == nil then text = redis.call('HGET', HOLDS, id) end
  if text then
    local user, amount, ends, created, charged, at, rest = match(text, '^(%S+) (%d+) (%d+) (%d+)([cp]?)@?(%d*)(.*)$')
    hold = {
      id = id, user = user, amount = amount + 0, ends = ends + 0, created = created + 0, charged_at_end = charged == 'c',
      unconfirmed = charged == 'p', draws = {}, price = match(rest, '%$(%S+)'), key = match(rest, ' #(%S+)$'),
      seq = at ~= '' and at + 0 or nil, parts = match(rest, ' &(%S+)'), path = match(rest, ' %^(%S+)'),
      tags = match(rest, ' ~(%S+)'),
    }
    for grant_id, part in gmatch(rest, ' (%S+) (%d+)') do
      hold.draws[#hold.draws + 1], hold.draws[#hold.draws + 2] = grant_id, part + 0
    end
  end
  holds[id] = hold or false
  return holds[id]
end

local function pack_hold(hold)
  local charged = hold.charged_at_end and 'c' or hold.unconfirmed and 'p' or ''
  if hold.seq then charged = format('%s@%d', charged, hold.seq) end
  local parts = { format('%s %d %d %d%s', hold.user, hold.amount, hold.ends, hold.created, charged) }
  for i = 1, #hold.draws, 2 do parts[#parts + 1] = format('%s %d', hold.draws[i], hold.draws[i + 1]) end
  if hold.parts then parts[#parts + 1] = '&' .. hold.parts end
  if hold.path then parts[#parts + 1] = '^' .. hold.path end
  if hold.tags then parts[#parts + 1] = '~' .. hold.tags end
  if hold.price then parts[#parts + 1] = '$' .. hold.price end
  if hold.key then parts[#parts + 1] = '#' .. hold.key end
  return concat(parts, ' ')
end

local function finished(id)
  local text = recent('r ' .. id)
  if not text then return nil end
  local state, user, amount, charged, requested, ended, answer = match(text, '^(%a+) (%S+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  local price, of_price = match(answer, '^%$(%S+) (.*)$')
  local key, of_key = match(of_price or answer, '^#(%S+) (.*)$')
  local tags, of_tags = match(of_key or of_price or answer, '^~(%S+) (.*)$')
  return { id = id, state = state, user = user, amount = amount + 0, charged = charged + 0, requested = requested + 0,
    ended = ended + 0, answer = of_tags or of_key or of_price or answer, price = price, key = key, tags = tags }
end

-- Remembers how a hold ended, with the answer that a repeated call is to get; `amount`: what it held with its parts.
local function remember_end(hold, state, charged, requested, ended, answer, amount)
  if hold.tags then answer = '~' .. hold.tags .. ' ' .. answer end
  if hold.key then answer = '#' .. hold.key .. ' ' .. answer end
  if hold.price then answer = '$' .. hold.price .. ' ' .. answer end
  recent_writes['r ' .. hold.id] = format('%s %s %d %d %d %d %s', state, hold.user, amount or hold.amount, charged, requested,
    ended, answer)
end

local function refuse_finished(over)
  return format('0 finished %s %s %d', over.state, over.user, over.charged)
end

-- Ends a hold of which `charge` stays taken: the first draws are kept, the newest go back. What would return to a grant that has
-- ended is counted as available here and booked as expired by forfeit(), a transaction of its own. `is_for_nothing`: nothing
-- comes of it, so that it was no request. Answers the draws {grant, kept, ...}, the forfeits {grant, amount, ...} and their sum.
local function end_hold(a, hold, charge, is_for_nothing)
  local draws, forfeits, forfeited = {}, {}, 0
  if levels then levels.unhold(hold.path or a.user, hold, is_for_nothing) end
  a.reserved = a.reserved - hold.amount
  if not hold.path then a.hold_count = a.hold_count - 1 end
  unschedule(a, hold.ends, 'h', hold.id)
  hold_writes[hold.id], holds[hold.id] = false, false
  for i = 1, #hold.draws, 2 do
    local g, part = grant_of(a, hold.draws[i]), hold.draws[i + 1]
    local kept = math.min(part, charge)
    local back = part - kept
    charge = charge - kept
    g.reserved = g.reserved - part
    draws[#draws + 1], draws[#draws + 2] = g, kept
    if back > 0 and g.state ~= '-' then
      only.add(a, g, back)
      only.forfeit(a, g, back)
      forfeited = forfeited + back
      forfeits[#forfeits + 1], forfeits[#forfeits + 2] = g, back
      place(a, g)
    else
      arrive(a, g, back)
    end
  end
  change_account(a)
  return draws, forfeits, forfeited
end

local function forfeit(a, forfeits, time)
  if forfeits[1] then figures_of(a) end
  for i = 1, #forfeits, 2 do
    local amount = forfeits[i + 1]
    only.forfeit(a, forfeits[i], -amount)
    only.add(a, forfeits[i], -amount)
    a.expired = a.expired + amount
    record(a, 'grant_expired', amount, { forfeits[i], amount }, time, format('"grant_id":"%s"', forfeits[i].id))
  end
end
