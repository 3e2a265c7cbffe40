-- Accounts: loaded once per call and packed into one text.
--
-- granted = spent + expired + voided + reserved + available - debt, after every operation.

-- available reserved debt, granted scheduled, spent, expired voided overdraft_limit, next_due hold_count, grant_count,
-- suspended thresholds front grant. What few operations need stays text until figures_of() is asked for it.
local ACCOUNT_FORMAT = '%d %d %d %s %d %s %d %d %s %s %s %s'
local ACCOUNT_PATTERN = '^(%d+) (%d+) (%d+) (%d+ %d+) (%d+) (%d+ %d+ %d+) (%d+) (%d+) (%d+) (%S+) (%S+) (.*)$'
local NOTHING = {} -- stands for every empty list that is replaced, never changed

local accounts = {} -- user_id -> account, settled
local changed_accounts = {}
local profile_writes = {} -- user_id -> metadata as JSON text

local function new_account(user)
  return {
    user = user, available = 0, reserved = 0, debt = 0, granted = 0, scheduled = 0, spent = 0, expired = 0, voided = 0,
    overdraft_limit = 0, next_due = NEVER, stored_due = NEVER, hold_count = 0, grant_count = 0,
    suspended = '-', thresholds = '-', grants = {}, waiting = NOTHING, queue = NOTHING, queue_at = 1,
  }
end

local function parse_account(user, text)
  local available, reserved, debt, granted, spent, ended, next_due, hold_count, grant_count, suspended, thresholds, front =
    match(text, ACCOUNT_PATTERN)
  next_due = next_due + 0
  local a = {
    user = user, available = available + 0, reserved = reserved + 0, debt = debt + 0, spent = spent + 0,
    next_due = next_due, stored_due = next_due, hold_count = hold_count + 0, suspended = suspended,
    thresholds = thresholds, granted_text = granted, ended_text = ended, count_text = grant_count, grants = {},
    waiting = NOTHING, queue = NOTHING, queue_at = 1,
  }
  if front ~= '' then
    a.front = parse_front(front)
    a.grants[a.front.id] = a.front
  end
  return a
end

-- The account, with granted, scheduled, expired, voided, overdraft_limit and grant_count. To be called before any of
-- these is used.
local function figures_of(a)
  if a.granted_text then
    local granted, scheduled = match(a.granted_text, '^(%d+) (%d+)$')
    local expired, voided, overdraft_limit = match(a.ended_text, '^(%d+) (%d+) (%d+)$')
    a.granted, a.scheduled, a.expired, a.voided = granted + 0, scheduled + 0, expired + 0, voided + 0
    a.overdraft_limit, a.grant_count, a.granted_text = overdraft_limit + 0, a.count_text + 0, nil
  end
  return a
end

local function pack_account(a)
  local granted, ended, count = a.granted_text, a.ended_text, a.count_text
  if not granted then
    granted, count = format('%d %d', a.granted, a.scheduled), format('%d', a.grant_count)
    ended = format('%d %d %d', a.expired, a.voided, a.overdraft_limit)
  end
  local front = a.front and a.front.id .. ' ' .. pack_grant(a.front) or ''
  return format(ACCOUNT_FORMAT, a.available, a.reserved, a.debt, granted, a.spent, ended, a.next_due, a.hold_count, count,
    a.suspended, a.thresholds, front)
end

local function change_account(a)
  if not a.changed then
    a.changed = true
    changed_accounts[#changed_accounts + 1] = a
  end
end

local function balances(a)
  return format(' %d %d %d', a.available, a.reserved, a.debt)
end
