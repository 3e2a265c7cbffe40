-- The write section: puts what the operations decided into Redis, by state/writing.lua.

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
  local texts = {}
  for id, hold in pairs(hold_writes) do texts[id] = hold and pack_hold(hold) end
  write_fields(HOLDS, texts)
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
        due[#due + 1], due[#due + 2] = format('%d', a.next_due), a.user
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

-- Writes all that is pending. A listing calls it first, so that it reads what the call has decided so far.
local function write_all()
  write_plain()
  write_accounts()
  write_grants()
  write_members(ORDER, order_writes)
  write_holds()
  write_fields(PROFILES, profile_writes)
  write_fields(RATES, rate_writes)
  write_fields(api_keys.ALL, api_keys.writes)
  if levels then levels.write() end
  write_ends()
  order_writes, profile_writes, rate_writes, api_keys.writes = {}, {}, {}, {}
end
