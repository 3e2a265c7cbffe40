-- The write section: puts what the operations decided into Redis. No command here can fail on sound data.

local WRITE_PAGE = 1000 -- arguments per command; unpack fails at about 8,000

local function write_paged(command, key, arguments)
  for first = 1, #arguments, WRITE_PAGE do
    redis.call(command, key, unpack(arguments, first, math.min(first + WRITE_PAGE - 1, #arguments)))
  end
end

-- Members of a lexical set: true adds, false removes.
local function write_members(key, writes)
  local added, removed = {}, {}
  for member, present in pairs(writes) do
    if present then
      added[#added + 1], added[#added + 2] = '0', member
    else
      removed[#removed + 1] = member
    end
  end
  write_paged('ZADD', key, added)
  write_paged('ZREM', key, removed)
end

local function write_grants()
  local set, gone = {}, {}
  for _, g in ipairs(changed_grants) do
    local field = g.user .. ' ' .. g.id
    if g.class ~= 'F' and g.class ~= 'N' then
      set[#set + 1], set[#set + 2] = field, pack_grant(g)
    elseif g.in_hash then
      gone[#gone + 1] = field
    end
    g.in_hash, g.changed = g.class ~= 'F' and g.class ~= 'N', false
  end
  write_paged('HDEL', GRANTS, gone) -- first, because a new grant may have the id of a forgotten one
  write_paged('HSET', GRANTS, set)
  changed_grants = {}
end

local function write_holds()
  local set, gone = {}, {}
  for id, hold in pairs(hold_writes) do
    if hold then
      set[#set + 1], set[#set + 2] = id, pack_hold(hold)
    else
      gone[#gone + 1] = id
    end
  end
  write_paged('HSET', HOLDS, set)
  write_paged('HDEL', HOLDS, gone)
  hold_writes = {}
end

local function write_accounts()
  local set, due, undue = {}, {}, {}
  for _, a in ipairs(changed_accounts) do
    set[#set + 1], set[#set + 2] = a.user, pack_account(a)
    if a.next_due ~= a.stored_due then
      if a.next_due == NEVER then
        undue[#undue + 1] = a.user
      else
        due[#due + 1], due[#due + 2] = format('%.0f', a.next_due), a.user
      end
    end
    a.stored_due, a.changed = a.next_due, false
    a.waiting, a.queue, a.queue_at, a.queue_last, a.queue_done = NOTHING, NOTHING, 1, nil, nil
  end
  write_paged('HSET', ACCOUNTS, set)
  write_paged('ZADD', DUE, due)
  write_paged('ZREM', DUE, undue)
  changed_accounts = {}
end

local function write_fields(key, writes)
  local set = {}
  for field, text in pairs(writes) do set[#set + 1], set[#set + 2] = field, text end
  write_paged('HSET', key, set)
end

local booked = false -- whether this call wrote what must not be done twice, so that its sender needs the answer again

-- Writes all that is pending. A listing calls it first, so that it reads what the call has decided so far.
local function write_all()
  booked = booked or #entries > 0 or next(recent_writes) ~= nil
  write_accounts()
  write_grants()
  write_members(ORDER, order_writes)
  write_holds()
  write_members(AGENDA, agenda_writes)
  write_fields(RECENT, recent_writes)
  write_fields(PROFILES, profile_writes)
  for i = 1, #entries, 2 do redis.call('XADD', OUTBOX, entries[i], 'e', entries[i + 1]) end
  if #entries > 0 then redis.call('HSET', META, 'seq', format('%.0f', seq), 'head', head) end
  order_writes, agenda_writes, recent_writes, profile_writes, entries = {}, {}, {}, {}, {}
end
