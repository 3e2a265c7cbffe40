-- Which grant burns next. The front grant is at hand in the account; the others wait in ORDER by class and sort key.

local QUEUE_PAGE = 8

local order_writes = {} -- member -> true to add, false to remove

local function set_class(a, g, class)
  if g.class == class then return end
  if g.class ~= 'F' and g.class ~= 'N' then order_writes[a.user .. ' ' .. g.class .. ' ' .. sort_key(g)] = false end
  if class ~= 'F' then
    order_writes[a.user .. ' ' .. class .. ' ' .. sort_key(g)] = true
    if class == 'L' then
      if a.waiting == NOTHING then a.waiting = {} end
      a.waiting[#a.waiting + 1] = sort_key(g)
    end
  end
  g.class = class
  change_grant(a, g)
end

-- The first sort key in the stored order that this call has not taken out, or nil.
local function next_stored(a)
  local prefix = a.user .. ' L '
  while true do
    if a.queue_at > #a.queue then
      if a.queue_done then return nil end
      local from = a.queue_last and '(' .. a.queue_last or '[' .. prefix
      a.queue = redis.call('ZRANGEBYLEX', ORDER, from, '(' .. a.user .. ' L!', 'LIMIT', '0', format('%d', QUEUE_PAGE))
      a.queue_at, a.queue_last, a.queue_done = 1, a.queue[#a.queue], #a.queue < QUEUE_PAGE
    elseif order_writes[a.queue[a.queue_at]] == false then
      a.queue_at = a.queue_at + 1
    else
      return sub(a.queue[a.queue_at], #prefix + 1)
    end
  end
end

-- Takes the first live grant out of the waiting ones, stored and new, and makes it the front.
local function promote(a)
  local best = next_stored(a)
  for _, key in ipairs(a.waiting) do
    if order_writes[a.user .. ' L ' .. key] and (not best or before(key, best)) then best = key end
  end
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

-- Takes an amount that the caller knows to be available, in burn order, to be spent or (held) to be reserved.
-- Answers the draws {grant, amount, ...}.
local function draw(a, amount, held)
  local draws = {}
  a.available = a.available - amount
  if held then a.reserved = a.reserved + amount end
  while amount > 0 do
    local g = a.front
    local part = math.min(amount, g.remaining)
    g.remaining = g.remaining - part
    if held then g.reserved = g.reserved + part end
    amount = amount - part
    draws[#draws + 1], draws[#draws + 2] = g, part
    if g.remaining == 0 then place(a, g) end
  end
  change_account(a)
  return draws
end

-- Credits arrive in a grant: debt is paid first, the rest is free. Answers what went into the debt.
local function arrive(a, g, amount)
  local paid = math.min(a.debt, amount)
  a.debt = a.debt - paid
  a.available = a.available + amount - paid
  g.remaining = g.remaining + amount - paid
  place(a, g)
  change_account(a)
  return paid
end
