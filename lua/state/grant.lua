-- Grants: immutable lots of credits with what is left of them.
--
-- class  F the account's front grant, burnt first; it lives inside the account's own text
--        L live and waiting behind the front   S scheduled, not begun   X nothing free (exhausted, expired or voided)
-- state  - none   e expired   v voided

local GRANT_FORMAT = '%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %s %s %s'
local GRANT_PATTERN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%a) (%S) (%S*)$'

local changed_grants = {}

local function parse_grant(id, text)
  local amount, remaining, reserved, priority, effective, expires, created, shelved, class, state, source =
    match(text, GRANT_PATTERN)
  return {
    id = id, amount = amount + 0, remaining = remaining + 0, reserved = reserved + 0, priority = priority + 0,
    effective = effective + 0, expires = expires + 0, created = created + 0, shelved = shelved + 0,
    class = class, state = state, source = source,
  }
end

local function pack_grant(g)
  return format(GRANT_FORMAT, g.amount, g.remaining, g.reserved, g.priority, g.effective, g.expires, g.created,
    g.shelved, g.class, g.state, g.source)
end

-- Burn order: priority, then earlier end (never is last), earlier start, created, id.
local function sort_key(g)
  if not g.key then
    g.key = format('%06.0f%013.0f%013.0f%013.0f ', g.priority, g.expires, g.effective, g.created) .. g.id
  end
  return g.key
end

-- The grant of that id, or false where Redis holds none.
local function grant_of(a, id)
  local g = a.grants[id]
  if g == nil then
    local text = redis.call('HGET', GRANTS, a.user .. ' ' .. id)
    g = text and parse_grant(id, text)
    if g then g.in_hash = true end
    a.grants[id] = g
  end
  return g
end

local function change_grant(a, g)
  if not g.changed then
    g.changed, g.user = true, a.user
    changed_grants[#changed_grants + 1] = g
  end
end
