-- Pools: accounts above a path that pay for it when its own grants do not, the nearest first (docs/pools.md).
--
-- What a path holds of a pool is a hold of the pool's own, a part of the path's: each account keeps what it paid, and its sums
-- are its own. The id of a part is that of the hold, "~" and the number of the pool's level (1: the root); it begins and ends
-- with the hold, whatever is asked of that. Where several pay there is a row for each, the path's first: that one has the
-- caller's key and members, `rows` (how many follow it) and what was answered; the others have `group`, its transaction_id, and
-- `path`.

-- Who pays for a path: itself, then its pools. An account that uses no pools draws on none above it, nor do those below it.
-- Their restricted grants pay for their `purpose`, too (state/restriction.lua; nil: for anything).
function pools.payers_of(a, purpose)
  local payers = { a, purpose = purpose }
  for _, level in ipairs(levels and levels.of(a.user) or NOTHING) do
    if level.is_pool and level.user ~= a.user then payers[#payers + 1] = account_of(level.user) end
    if level.is_apart then break end
  end
  return payers
end

function pools.available(payers)
  local sum = 0
  for _, a in ipairs(payers) do sum = sum + only.usable(a, payers.purpose) end
  return sum
end

-- How much debt they may make yet.
function pools.debt_room(payers)
  local sum = 0
  for _, a in ipairs(payers) do sum = sum + math.max(0, figures_of(a).overdraft_limit - a.debt) end
  return sum
end

-- What each of them pays of amounts that they have: grants in their order, then debt in their order.
function pools.shares(payers, from_grants, on_debt)
  local shares = { purpose = payers.purpose }
  for n, a in ipairs(payers) do
    local amount = math.min(from_grants, only.usable(a, payers.purpose))
    local owed = on_debt > 0 and math.min(on_debt, math.max(0, figures_of(a).overdraft_limit - a.debt)) or 0
    shares[n], from_grants, on_debt = { a = a, amount = amount, owed = owed }, from_grants - amount, on_debt - owed
  end
  return shares
end

-- Whether one of them would have spent more than can be counted.
function pools.overflow(shares)
  for _, one in ipairs(shares) do
    if spent_of(one.a) + one.amount + one.owed > AMOUNT_MAX then return true end
  end
  return false
end

-- Takes what each pays; `draws` of a share are its draws then.
function pools.take(shares)
  for _, one in ipairs(shares) do
    if one.owed > 0 then welcome(one.a) end
    one.draws = draw(one.a, one.amount, false, shares.purpose)
    one.a.debt, one.paid = one.a.debt + one.owed, one.amount + one.owed
  end
end

-- What stands behind an answer where several could pay: " =spendable", then "|user_id,amount,available" for each that does, or
-- (`all`) each that could.
function pools.told(shares, all)
  if #shares < 2 then return '' end
  local spendable, parts = 0, ''
  for _, one in ipairs(shares) do
    local available = one.a.available - (one.a.forfeiting or 0)
    spendable = spendable + only.usable(one.a, shares.purpose)
    if all or one.paid > 0 then parts = format('%s|%s,%d,%d', parts, one.a.user, one.paid, available) end
  end
  return format(' =%d', spendable) .. parts
end

-- The balances of an account as they will be when what is forfeited is booked.
function pools.balances(a, purpose)
  return format(' %d %d %d', a.available - (a.forfeiting or 0), a.reserved, a.debt) .. only.told(a, purpose)
end

-- What a read tells of who would pay an amount.
function pools.told_of(a, amount, purpose)
  local payers = pools.payers_of(a, purpose)
  local shares = pools.shares(payers, math.min(amount, pools.available(payers)), 0)
  for _, one in ipairs(shares) do one.paid = one.amount end
  return pools.told(shares, true)
end

-- What an answer tells of what is left to spend, where nobody pays.
function pools.told_after(a)
  local shares = {}
  for n, one in ipairs(pools.payers_of(a)) do shares[n] = { a = one, paid = 0 } end
  return pools.told(shares)
end

-- Books a row for each of several who paid, or took back, something: `kind`, `amount`, `draws`, `detail`, and `counts`, which
-- moves what levels count by it. `answer` makes what the call is answered of the transaction_id of the first row.
function pools.record(path, rows_of, time, answer, key, extra)
  local group = transaction_of(seq + 1)
  local text = answer(group)
  for n, row in ipairs(rows_of) do
    local detail = row.detail or ''
    if n > 1 then
      detail = join(detail, format('"group":"%s","path":"%s"', group, path))
    elseif #rows_of > 1 or string.find(text, ' =', 1, true) then
      detail = join(detail, format('"rows":%d,"answered":"%s"', #rows_of - 1, text))
    end
    if levels and row.counts then row.counts() end
    record(row.a, row.kind, row.amount, row.draws, time, detail, n == 1 and key or nil, n == 1 and extra or nil)
  end
  return text
end
