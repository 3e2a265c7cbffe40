-- What at_end says of a grant (state/grant.lua), done when it ends: its rest lives on, and its renewal is waited for.

local rolled_due = {} -- agenda members of rolled over rests that have ended by now as well

-- The rest of a grant that ended lives on as a grant of its own, once. It is part of what was available all along, so
-- no balance moves.
local function roll_over(a, g, amount, time, span)
  local id = g.id
  repeat id = id .. '.rollover' until not grant_of(a, id)
  local r = {
    id = id, amount = amount, remaining = amount, reserved = 0, priority = g.priority, effective = time,
    expires = math.min(time + span, NEVER), created = time, shelved = 0, class = 'N', state = '-', source = g.source,
    at_end = '', only = g.only,
  }
  a.grants[id], a.grant_count = r, a.grant_count + 1
  if r.expires <= now then
    rolled_due[#rolled_due + 1] = agenda_member(a, r.expires, 'x', id)
  elseif r.expires < NEVER then
    schedule(a, r.expires, 'x', id)
  end
  place(a, r)
  local detail = format('"grant_id":"%s","rolled_from":"%s",%s', id, g.id, format_terms(r))
  record(a, 'grant_rolled_over', amount, { g, amount, r, amount }, time, detail)
end

-- The first rolled over rest that is due before the agenda member (nil: at all), taken out; nil where none is.
local function take_rolled(member)
  local first = 1
  for n = 2, #rolled_due do
    if before(rolled_due[n], rolled_due[first]) then first = n end
  end
  local due = rolled_due[first]
  if due and (not member or before(due, member)) then return table.remove(rolled_due, first) end
end

-- Takes note of the renewals of all grants that end at one moment, before the first of these ends is booked.
local function await_renewals(a, due, from, moment)
  for n = from, #due do
    local time, id = match(due[n], '^%S+ (%d+) x (%S+)$')
    if time ~= moment then return end
    local g = grant_of(a, id)
    local _, _, mark, group = match(g and terms_of(g).at_end or '', AT_END_PATTERN)
    if mark == '@' then await_renewal(a, group, time) end
  end
end
