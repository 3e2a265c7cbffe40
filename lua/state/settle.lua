-- Settling: whatever is due for an account is done before anything else touches it, so that no sweeper is needed for a right
-- answer. Each transaction carries the time at which it was due.

local settlers = { PAGE = 100 } -- agenda kind -> function(account, id, time)

-- A hold ends with its parts, whichever of their accounts comes by first.
function settlers.h(_, id, time)
  local hold = hold_of(id)
  if not hold then return end
  hold = pools.whole(hold)
  local held = pools.held(hold)
  if not hold_of(id) then return end -- settling the others ended it
  local total, charges = pools.total(held), hold.charged_at_end
  for _, one in ipairs(held) do charges = charges and spent_of(one.a) + one.hold.amount <= AMOUNT_MAX end
  if charges then return pools.charge_at_end(held, total, time) end
  pools.give_back('reservation_expired', held, time, '', function() return '-' end)
  remember_end(hold, 'expired', 0, 0, time, '-', total)
end

function settlers.s(a, id, time)
  local g = grant_of(a, id)
  figures_of(a)
  a.scheduled, a.granted = a.scheduled - g.amount, a.granted + g.amount
  g.remaining = 0
  local paid = arrive(a, g, g.amount)
  record(a, 'grant_started', g.amount, { g, paid }, time, format('"grant_id":"%s"', id))
end

-- What open reservations hold of a grant that ends is no part of its rest: it stays theirs and does not roll over. What
-- they give back later is forfeited, as without a rollover.
function settlers.x(a, id, time)
  local g = grant_of(a, id)
  if not g then return end
  local rest = terms_of(g).remaining
  local most, span = match(g.at_end, AT_END_PATTERN)
  local rolled = most == '' and 0 or math.min(rest, most + 0)
  local lost = rest - rolled
  figures_of(a)
  g.state, g.remaining = 'e', 0
  place(a, g)
  if rolled > 0 then roll_over(a, g, rolled, time, span + 0) end
  only.add(a, g, -lost)
  a.expired = a.expired + lost
  change_account(a)
  if lost > 0 then record(a, 'grant_expired', lost, { g, lost }, time, format('"grant_id":"%s"', id)) end
end

-- A grant that Redis has forgotten and the store does not know to be applied would be applied again, so that waits.
function settlers.y(a, id)
  local g = grant_of(a, id)
  if not g or terms_of(g).shelved == 0 then return end -- put on the agenda under another recent window
  if not is_stored(g.shelved) then
    g.shelved = now
    schedule(a, now + recent_window_ms, 'y', id)
    return change_grant(a, g)
  end
  if g.expires < NEVER then unschedule(a, g.expires, 'x', id) end
  order_writes[a.user .. ' X ' .. sort_key(g)] = false
  g.class = 'N'
  a.grant_count = figures_of(a).grant_count - 1
  a.grants[id] = false
  change_grant(a, g)
  change_account(a)
end

local function settle_member(a, member)
  local time, kind, id = match(member, '^%S+ (%d+) (%a) (%S+)$')
  settlers[kind](a, id, time + 0)
end

-- Settles rolled over rests whose own end has come, those before `member` (nil: all), each in its turn.
local function settle_rolled(a, member)
  local due = take_rolled(member)
  while due do
    settle_member(a, due)
    due = take_rolled(member)
  end
end

local function settle(a)
  local later = format('%s %013d', a.user, now + 1)
  local from, due = '[' .. a.user .. ' ', nil
  local upcoming = redis.call('ZRANGEBYLEX', AGENDA, '[' .. later, '(' .. a.user .. '!', 'LIMIT', '0', '1')[1]
  a.next_due = upcoming and match(upcoming, '^%S+ (%d+)') + 0 or NEVER
  change_account(a)
  repeat
    due = redis.call('ZRANGEBYLEX', AGENDA, from, '(' .. later, 'LIMIT', '0', format('%d', settlers.PAGE))
    for n, member in ipairs(due) do
      settle_rolled(a, member)
      local moment = match(member, '^%S+ (%d+) x ')
      if moment and moment ~= a.moment then await_renewals(a, due, n, moment) end
      a.moment = moment
      agenda_writes[member] = false
      settle_member(a, member)
    end
    from = '(' .. (due[#due] or '')
  until #due < settlers.PAGE
  settle_rolled(a)
end

-- The account of that user, settled; a new one, not stored before it changes, where there is none.
local function account_of(user)
  local a = accounts[user]
  if a then return a end
  local text = account_texts[user]
  if text == nil then
    text = redis.call('HGET', ACCOUNTS, user)
    account_texts[user] = text
  end
  a = text and parse_account(user, text) or new_account(user)
  accounts[user] = a
  if a.next_due <= now then settle(a) end
  return a
end
