-- The agenda: what falls due for an account, in order of time. Members are "user_id time kind id".
--
-- Kinds, in the order in which they are settled at one and the same millisecond:
--   h the end of a hold   s the start of a grant   x the end of a grant   y forgetting a grant with nothing left

local function agenda_member(a, time, kind, id)
  return format('%s %013d %s %s', a.user, time, kind, id)
end

local function schedule(a, time, kind, id)
  agenda_writes[agenda_member(a, time, kind, id)] = true
  if time < a.next_due then
    a.next_due = time
    change_account(a)
  end
end

-- next_due may now be too early, which costs one look when that time comes and nothing else.
local function unschedule(a, time, kind, id)
  agenda_writes[agenda_member(a, time, kind, id)] = false
end
