-- Accounts: loaded once per call and packed into one text.
--
-- granted = spent + expired + voided + reserved + available + restricted - debt, after every operation. What was spent is
-- therefore not kept: spent_of() tells it. `available` is what serves anything, restricted what grants have that do not.

-- What everyday operations change or ask for stands in front: available reserved, remaining held (of the front grant: what
-- it has left, and what open holds keep of it), next_due (0: never) hold_count, flags, the front grant's id ("*": none).
-- Flags are "-", or a letter for each thing that makes an account more than plain: s suspended, d debt, t thresholds,
-- o restricted grants, r rules of its own (state/level.lua).
-- Behind them: debt thresholds, granted scheduled expired voided overdraft_limit grant_count, restrictions where there are some
-- (state/restriction.lua), then the front grant's terms.
-- What few operations need stays text until figures_of() is asked for it.
local ACCOUNT_PATTERN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([%-a-z]+) (%S+) (%d+) (%S+) (%d+ %d+ %d+ %d+ %d+ %d+) ?(.*)$'

local accounts = {} -- user_id -> account, settled
local changed_accounts = {}
local profile_writes = {} -- user_id -> metadata as JSON text
local rate_writes = {} -- field of RATES -> text, or false to remove it (state/price.lua)
local levels -- of paths, and their rules (state/level.lua); nil where the partition has none and the batch makes none

local function new_account(user)
  return {
    user = user, available = 0, reserved = 0, debt = 0, granted = 0, scheduled = 0, expired = 0, voided = 0,
    overdraft_limit = 0, next_due = NEVER, stored_due = NEVER, hold_count = 0, grant_count = 0,
    suspended = '-', thresholds = '-', grants = {}, restrictions = NOTHING, waiting = NOTHING, queue = NOTHING, queue_at = 1,
  }
end

-- An account of schema 1: available reserved debt granted scheduled spent expired voided overdraft_limit next_due hold_count
-- grant_count suspended thresholds, then the front grant. Answers it as schema 2 has it, in which it is written from now on.
local function of_schema_1(text)
  local available, reserved, debt, scheduled, spent, expired, voided, limit, next_due, hold_count, grant_count, suspended,
    thresholds, front =
    match(text, '^(%d+) (%d+) (%d+) %d+ (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+) (.*)$')
  local granted = spent - debt + expired + voided + reserved + available -- as operations/restore.lua has it
  local id, amount, remaining, held, priority, effective, expires, created, shelved, source =
    match(front, '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) F %- (.*)$')
  local terms = id and format('%s %s %s %d %s %s %s', amount, priority, effective, expires % NEVER, created, shelved, source)
  return format('%s %s %s %s %d %s %s %s %s %s %d %s %s %s %s %s %s', available, reserved, remaining or '0', held or '0',
    next_due % NEVER, hold_count, suspended, id or '*', debt, thresholds, granted, scheduled, expired, voided, limit, grant_count,
    terms or '')
end

local function parse_account(user, text)
  local available, reserved, remaining, held, next_due, hold_count, flags, front, debt, thresholds, figures, terms =
    match(text, ACCOUNT_PATTERN)
  if not available then return parse_account(user, of_schema_1(text)) end
  next_due = next_due == '0' and NEVER or next_due + 0
  local a = {
    user = user, available = available + 0, reserved = reserved + 0, debt = debt + 0, hold_count = hold_count + 0,
    next_due = next_due, stored_due = next_due, suspended = sub(flags, 1, 1) == 's' and 's' or '-', thresholds = thresholds,
    has_rules = sub(flags, -1) == 'r',
    figures = figures, grants = {}, restrictions = NOTHING, waiting = NOTHING, queue = NOTHING, queue_at = 1,
  }
  if string.find(flags, 'o', 1, true) then
    local restrictions, rest = match(terms, '^~(%S+) ?(.*)$')
    a.restrictions, terms = only.parse(restrictions), rest
  end
  if front ~= '*' then
    a.front = { id = front, remaining = remaining + 0, reserved = held + 0, terms = terms, class = 'F', state = '-' }
    a.grants[front] = a.front
  end
  return a
end

-- The account, with granted, scheduled, expired, voided, overdraft_limit and grant_count. To be called before any of
-- these is used.
local function figures_of(a)
  if a.figures then
    local granted, scheduled, expired, voided, overdraft_limit, grant_count =
      match(a.figures, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
    a.granted, a.scheduled, a.expired, a.voided = granted + 0, scheduled + 0, expired + 0, voided + 0
    a.overdraft_limit, a.grant_count, a.figures = overdraft_limit + 0, grant_count + 0, nil
  end
  return a
end

-- What was spent. In this order no step goes beyond what a Lua number counts exactly.
local function spent_of(a)
  figures_of(a)
  return a.granted - a.expired - a.voided - a.reserved - a.available - only.free(a) + a.debt
end

local function flags_of(a)
  local flags = (a.suspended == 's' and 's' or '') .. (a.debt > 0 and 'd' or '') .. (a.thresholds ~= '-' and 't' or '')
    .. (a.restrictions[1] and 'o' or '') .. (a.has_rules and 'r' or '')
  return flags == '' and '-' or flags
end

local function pack_account(a)
  local figures, front = a.figures, a.front
  if not figures then
    figures = format('%d %d %d %d %d %d', a.granted, a.scheduled, a.expired, a.voided, a.overdraft_limit, a.grant_count)
  end
  return format('%d %d %d %d %d %d %s %s %d %s %s %s', a.available, a.reserved, front and front.remaining or 0,
    front and front.reserved or 0, a.next_due % NEVER, a.hold_count, flags_of(a), front and front.id or '*', a.debt, a.thresholds,
    figures, only.pack(a) .. (front and (front.terms or pack_terms(front)) or ''))
end

local function change_account(a)
  if not a.changed then
    a.changed = true
    changed_accounts[#changed_accounts + 1] = a
  end
end

local function balances(a, purpose)
  return format(' %d %d %d', a.available, a.reserved, a.debt) .. only.told(a, purpose)
end
