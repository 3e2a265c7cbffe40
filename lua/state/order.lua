-- Which grant burns next. The front grant is at hand in the account; the others wait in ORDER by class and sort key. Where the
-- live ones of a class wait is kept by the account itself (class L), or by their restriction.

local QUEUE_PAGE = 8

local order_writes = {} -- member -> true to add, false to remove

local function set_class(a, g, class)
  if g.class == class then return end
  if g.class ~= 'F' and g.class ~= 'N' then order_writes[a.user .. ' ' .. g.class .. ' ' .. sort_key(g)] = false end
  if class ~= 'F' then
    order_writes[a.user .. ' ' .. class .. ' ' .. sort_key(g)] = true
    local of = class == 'L' and a or g.only and class ~= 'S' and class ~= 'X' and only.of(a, g.only)
    if of then
      if of.waiting == NOTHING then of.waiting = {} end
      of.waiting[#of.waiting + 1] = sort_key(g)
    end
  end
  g.class = class
  change_grant(a, g)
end

-- The first sort key of a class in the stored order that this call has not taken out, or nil.
local function next_stored(a, of, class)
  local prefix = a.user .. ' ' .. class .. ' '
  while true do
    if of.queue_at > #of.queue then
      if of.queue_done then return nil end
      local from, to = of.queue_last and '(' .. of.queue_last or '[' .. prefix, '(' .. a.user .. ' ' .. class .. '!'
      of.queue = redis.call('ZRANGEBYLEX', ORDER, from, to, 'LIMIT', '0', format('%d', QUEUE_PAGE))
      of.queue_at, of.queue_last, of.queue_done = 1, of.queue[#of.queue], #of.queue < QUEUE_PAGE
    elseif order_writes[of.queue[of.queue_at]] == false then
      of.queue_at = of.queue_at + 1
    else
      return sub(of.queue[of.queue_at], #prefix + 1)
    end
  end
end

-- The sort key of the first live grant of a class, stored or new, or nil.
function only.first_waiting(a, of, class)
  local best = next_stored(a, of, class)
  for _, key in ipairs(of.waiting) do
    if order_writes[a.user .. ' ' .. class .. ' ' .. key] and (not best or before(key, best)) then best = key end
  end
  return best
end

-- Takes the first live grant that anything may draw on out of the waiting ones, and makes it the front.
local function promote(a)
  local best = only.first_waiting(a, a, 'L')
  if best then
    local g = grant_of(a, match(best, ' (%S+)$'))
    set_class(a, g, 'F')
    a.front = g
  end
end

-- A grant with nothing left and no hold on it is forgotten after the recent window.
local function shelve(a, g)
  local idle = g.class == 'X' and g.reserved == 0
  if idle and g.shelved == 0 then
    g.shelved = now
    schedule(a, now + recent_window_ms, 'y', g.id)
  elseif not idle and g.shelved ~= 0 then
    unschedule(a, g.shelved + recent_window_ms, 'y', g.id)
    g.shelved = 0
  end
end

-- Puts a grant where its state says; to be called after each change of a grant.
local function place(a, g)
  change_grant(a, g)
  local front = a.front
  if front == g and g.remaining > 0 and g.state == '-' then return end
  terms_of(g)
  if g.state ~= '-' or g.remaining == 0 then
    set_class(a, g, 'X')
    if front == g then
      a.front = nil
      promote(a)
    end
  elseif g.effective > now and (g.class == 'N' or g.class == 'S') then -- begun stays begun, if the clock goes back
    set_class(a, g, 'S')
  elseif g.only then
    set_class(a, g, only.of(a, g.only).class)
  elseif not front then
    set_class(a, g, 'F')
    a.front = g
  elseif front ~= g then
    local first = before(sort_key(g), sort_key(front))
    set_class(a, first and front or g, 'L')
    if first then
      set_class(a, g, 'F')
      a.front = g
    end
  end
  shelve(a, g)
end
