-- Grants: immutable lots of credits with what is left of them.
--
-- class  F the account's front grant, burnt first; it lives inside the account's own text
--        L live and waiting behind the front   S scheduled, not begun   X nothing free (exhausted, expired or voided)
--        a number: live and restricted, that of its restriction (state/restriction.lua)
-- state  - none   e expired   v voided
-- only   what it may be spent on, " =tag,tag" at the end of its text, behind at_end; missing where that is anything
-- at_end what becomes of it when it expires, the last word before that, missing where that is nothing:
--        "units+milliseconds" where up to so many units live on for so long, then of a plan's grant "@group" (a renewal
--        in this plan group follows) or "!group" (none does)

local GRANT_PATTERN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%w+) (%S) (%S*) ?([^= ]*) ?=?(%S*)$'
local AT_END_PATTERN = '^(%d*)%+?(%d*)([@!]?)(%S*)$' -- units, milliseconds, mark, group

local function pack_at_end(most, span, group, renews)
  local rolled = most ~= '' and most .. '+' .. span or ''
  if group == '' then return rolled end
  return rolled .. (renews == '1' and '@' or '!') .. group
end

local changed_grants = {}

local function parse_grant(id, text)
  local amount, remaining, reserved, priority, effective, expires, created, shelved, class, state, source, at_end, tags =
    match(text, GRANT_PATTERN)
  return {
    id = id, amount = amount + 0, remaining = remaining + 0, reserved = reserved + 0, priority = priority + 0,
    effective = effective + 0, expires = expires + 0, created = created + 0, shelved = shelved + 0,
    class = class, state = state, source = source, at_end = at_end, only = tags ~= '' and tags or nil,
  }
end

-- The terms of a front grant, as they stand in the text of its account: amount priority effective expires (0: never) created
-- shelved source at_end.
local function pack_terms(g)
  local at_end = g.at_end ~= '' and ' ' .. g.at_end or ''
  return format('%d %d %d %d %d %d %s', g.amount, g.priority, g.effective, g.expires % NEVER, g.created, g.shelved,
    g.source) .. at_end
end

-- The grant, with its terms. To be called before anything but id, remaining and reserved of a front grant is used, which is
-- at hand in each operation and mostly needs no more of it.
local function terms_of(g)
  if g.terms then
    local amount, priority, effective, expires, created, shelved, source, at_end =
      match(g.terms, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S*) ?(%S*)$')
    g.amount, g.priority, g.effective, g.created, g.shelved = amount + 0, priority + 0, effective + 0, created + 0, shelved + 0
    g.expires, g.source, g.at_end, g.terms = expires == '0' and NEVER or expires + 0, source, at_end, nil
  end
  return g
end

local function pack_grant(g)
  terms_of(g)
  local at_end = g.only and ' ' .. g.at_end .. ' =' .. g.only or g.at_end ~= '' and ' ' .. g.at_end or ''
  return format('%d %d %d %d %d %d %d %d %s %s %s', g.amount, g.remaining, g.reserved, g.priority, g.effective, g.expires,
    g.created, g.shelved, g.class, g.state, g.source) .. at_end
end

-- Burn order: priority, then earlier end (never is last), earlier start, created, id.
local function sort_key(g)
  if not g.key then
    terms_of(g)
    g.key = format('%06d%013d%013d%013d ', g.priority, g.expires, g.effective, g.created) .. g.id
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
