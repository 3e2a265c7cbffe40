-- The end of holds with their parts (state/part.lua).

-- Ends a hold of which `charge` stays taken: what the path holds stays first. Each of `held` then has `draws`, `kept`, `back` and
-- what is forfeited.
function pools.end_held(held, charge, is_for_nothing)
  for _, one in ipairs(held) do
    one.kept = math.min(one.hold.amount, charge)
    one.back, charge = one.hold.amount - one.kept, charge - one.kept
    one.draws, one.forfeits, one.forfeited = end_hold(one.a, one.hold, one.kept, is_for_nothing)
  end
end

function pools.forfeited(held)
  local sum = 0
  for _, one in ipairs(held) do sum = sum + (one.forfeited or 0) end
  return sum
end

function pools.forfeit(held, time)
  for _, one in ipairs(held) do
    if one.forfeits then forfeit(one.a, one.forfeits, time) end
  end
end

-- What a hold and its parts held and what was charged of that, as a member of the first of several rows.
function pools.in_all(rows_of, total, charged)
  return #rows_of > 1 and format(',"in_all":[%d,%d]', total, charged) or ''
end

-- Gives back all that a hold keeps: a row of that kind for each. Answers the answer of `answer`.
function pools.give_back(kind, held, time, members, answer, key, extra)
  local rows_of, path = {}, held[1].hold.user
  pools.end_held(held, 0, true)
  for n, one in ipairs(held) do
    rows_of[n] = {
      kind = kind, a = one.a, amount = one.hold.amount, draws = one.draws,
      detail = format('"reservation_id":"%s","forfeited":%d', one.hold.id, one.forfeited) .. members,
    }
  end
  rows_of[1].detail = rows_of[1].detail .. pools.in_all(rows_of, pools.total(held), 0)
  local text = pools.record(path, rows_of, time, answer, key, extra)
  pools.forfeit(held, time)
  return text
end

-- Charges what a hold has that nobody settled.
function pools.charge_at_end(held, total, time)
  local hold, rows_of = held[1].hold, {}
  pools.end_held(held, total)
  for n, one in ipairs(held) do
    rows_of[n] = {
      kind = 'commit', a = one.a, amount = one.kept, draws = one.draws,
      detail = format('"reservation_id":"%s",', one.hold.id)
        .. '"released":0,"forfeited":0,"uncovered":0,"late":false,"at_end":"charge"',
      counts = function() levels.charge(hold.path or hold.user, one.kept, time) end,
    }
  end
  local first, priced = rows_of[1], ''
  if hold.price then first.detail, priced = first.detail .. ',"price":"' .. hold.price .. '"', ' $' .. hold.price end
  first.detail = first.detail .. api_keys.told(hold) .. pools.in_all(rows_of, total, total)
  local answer = pools.record(hold.user, rows_of, time, function(transaction)
    return format('ok %s %s %s %d 0 0 0 0', hold.user, hold.id, transaction, total) .. balances(first.a) .. priced
  end)
  remember_end(hold, 'committed', total, total, time, answer, total)
end

-- The rows of a commit: of the path, which tells of all, of each part, and of those who pay beyond what is held and held nothing.
function pools.rows_of_commit(hold, held, shares, ended, uncovered)
  local rows_of = {}
  for n, one in ipairs(shares) do
    local of = one.of or {}
    local charged = (of.kept or 0) + one.paid
    if n == 1 or one.of or charged > 0 then
      local detail = format('"reservation_id":"%s"', one.of and of.hold.id or hold.id)
      if n == 1 or one.of then
        detail = format('%s,"released":%d,"forfeited":%d,"uncovered":%d,"late":%s', detail, of.back or 0, of.forfeited or 0,
          n == 1 and uncovered or 0, ended and 'true' or 'false')
      end
      local draws = of.draws or {}
      for m = 1, #one.draws do draws[#draws + 1] = one.draws[m] end
      one.paid = charged
      rows_of[#rows_of + 1] = {
        kind = (n == 1 or one.of) and 'commit' or 'deduct', a = one.a, amount = charged, draws = draws, detail = detail,
        counts = function() levels.charge(hold.user, charged, now) end,
      }
    end
  end
  return rows_of
end

-- What each pays beyond what is held, those first whose holds end with it.
function pools.shares_beyond(payers, held, free, on_debt)
  local shares = pools.shares(payers, free, on_debt)
  for _, of in ipairs(held) do
    local found
    for _, one in ipairs(shares) do if one.a == of.a then found = one end end
    if not found then
      found = { a = of.a, amount = 0, owed = 0 }
      shares[#shares + 1] = found
    end
    found.of = of
  end
  return shares
end
