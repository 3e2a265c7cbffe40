-- Accounts: loaded once per call and packed into one text.
--
-- granted = spent + expired + voided + reserved + available - debt, after every operation.

local ACCOUNT_FORMAT = '%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %s %s %s'
local ACCOUNT_PATTERN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+) (.*)$'

local account_texts = {} -- user_id -> text, or false where there is none; read ahead for the whole call
local accounts = {} -- user_id -> account, settled
local changed_accounts = {}
local profile_writes = {} -- user_id -> metadata as JSON text

local function new_account(user)
  return {
    user = user, available = 0, reserved = 0, debt = 0, granted = 0, scheduled = 0, spent = 0, expired = 0, voided = 0,
    overdraft_limit = 0, next_due = NEVER, stored_due = NEVER, hold_count = 0, grant_count = 0,
    suspended = '-', thresholds = '-', grants = {}, waiting = {}, queue = {}, queue_at = 1,
  }
end

local function parse_account(user, text)
  local available, reserved, debt, granted, scheduled, spent, expired, voided, overdraft_limit, next_due, hold_count,
    grant_count, suspended, thresholds, front = match(text, ACCOUNT_PATTERN)
  next_due = next_due + 0
  local a = {
    user = user, available = available + 0, reserved = reserved + 0, debt = debt + 0, granted = granted + 0,
    scheduled = scheduled + 0, spent = spent + 0, expired = expired + 0, voided = voided + 0,
    overdraft_limit = overdraft_limit + 0, next_due = next_due, stored_due = next_due, hold_count = hold_count + 0,
    grant_count = grant_count + 0, suspended = suspended, thresholds = thresholds,
    grants = {}, waiting = {}, queue = {}, queue_at = 1,
  }
  if front ~= '' then
    local id, packed = match(front, '^(%S+) (.*)$')
    a.front = parse_grant(id, packed)
    a.grants[id] = a.front
  end
  return a
end

local function pack_account(a)
  local front = a.front and a.front.id .. ' ' .. pack_grant(a.front) or ''
  return format(ACCOUNT_FORMAT, a.available, a.reserved, a.debt, a.granted, a.scheduled, a.spent, a.expired, a.voided,
    a.overdraft_limit, a.next_due, a.hold_count, a.grant_count, a.suspended, a.thresholds, front)
end

local function change_account(a)
  if not a.changed then
    a.changed = true
    changed_accounts[#changed_accounts + 1] = a
  end
end

local function balances(a)
  return format(' %.0f %.0f %.0f', a.available, a.reserved, a.debt)
end
