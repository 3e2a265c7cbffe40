-- Restrictions: what grants may be spent on (docs/restricted-grants.md). The restricted grants of an account that are for the
-- same things are one restriction; it exists while something of them is free.
--
-- In the account (flag o, behind its figures): "~number=available=tag,tag;number=available=tag". The number is the class of
-- its grants in ORDER (state/order.lua), the smallest that no other one has.

local NOTHING = {} -- stands for every empty list that is replaced, never changed
local only = { PATTERN = '(%d+)=(%d+)=([^;]+)', RESTRICTIONS_MAX = 8 }

function only.parse(text)
  local found = {}
  for class, available, tags in gmatch(text, only.PATTERN) do
    found[#found + 1] = only.made(class, available + 0, tags)
  end
  return found
end

-- A restriction; `waiting` and what follows say which of its grants burns next (state/order.lua).
function only.made(class, available, tags)
  return { class = class, available = available, only = tags, forfeiting = 0, waiting = NOTHING, queue = NOTHING, queue_at = 1 }
end

-- As it stands in the account, in front of the terms of the front grant.
function only.pack(a)
  if not a.restrictions[1] then return '' end
  local parts = {}
  for n, r in ipairs(a.restrictions) do parts[n] = format('%s=%d=%s', r.class, r.available, r.only) end
  return '~' .. concat(parts, ';') .. ' '
end

-- What is free of restricted grants.
function only.free(a)
  local sum = 0
  for _, r in ipairs(a.restrictions) do sum = sum + r.available end
  return sum
end

-- The restriction of those tags; it begins where there is none.
function only.of(a, tags)
  local taken, class = {}, 1
  for _, r in ipairs(a.restrictions) do
    if r.only == tags then return r end
    taken[r.class] = true
  end
  while taken[format('%d', class)] do class = class + 1 end
  local r = only.made(format('%d', class), 0, tags)
  if a.restrictions == NOTHING then a.restrictions = {} end
  a.restrictions[#a.restrictions + 1] = r
  return r
end

-- Whether an account has as many restrictions as it may be given, and none of those tags.
function only.is_one_too_many(a, tags)
  for _, r in ipairs(a.restrictions) do if r.only == tags then return false end end
  return #a.restrictions >= only.RESTRICTIONS_MAX
end

-- Adds to what is free of a grant, or takes from it.
function only.add(a, g, amount)
  if not g.only then
    a.available = a.available + amount
  elseif amount ~= 0 then
    local r = only.of(a, g.only)
    r.available = r.available + amount
    if r.available > 0 then return end
    for n, one in ipairs(a.restrictions) do if one == r then table.remove(a.restrictions, n) end end
  end
end
