-- Burning: what is taken from which grant, and what comes into one.

-- Whether a restricted grant burns before another one, by their sort keys: by priority, then by end, then the restricted one.
function only.burns_before(key, other, is_restricted)
  local first, second = sub(key, 1, 19), sub(other, 1, 19)
  if first ~= second then return first < second end
  return not is_restricted or before(key, other)
end

-- The grant that burns next for a purpose (nil: for anything).
function only.next(a, purpose)
  local best, best_key, is_restricted = a.front, nil, false
  for _, r in ipairs(purpose and a.restrictions or NOTHING) do
    local key = only.fits(r.only, purpose) and only.first_waiting(a, r, r.class)
    if key and not best_key and best then best_key = sort_key(best) end
    if key and (not best_key or only.burns_before(key, best_key, is_restricted)) then
      best, best_key, is_restricted = grant_of(a, match(key, ' (%S+)$')), key, true
    end
  end
  return best
end

-- Takes an amount that the caller knows to be usable, in burn order, to be spent or (held) to be reserved.
-- Answers the draws {grant, amount, ...}.
local function draw(a, amount, held, purpose)
  local draws = {}
  if held then a.reserved = a.reserved + amount end
  while amount > 0 do
    local g = only.next(a, purpose)
    local part = math.min(amount, g.remaining)
    g.remaining = g.remaining - part
    only.add(a, g, -part)
    if held then g.reserved = g.reserved + part end
    amount = amount - part
    draws[#draws + 1], draws[#draws + 2] = g, part
    if g.remaining == 0 or g.only then place(a, g) end
  end
  change_account(a)
  return draws
end

-- Credits arrive in a grant: debt is paid first, unless the grant is restricted, the rest is free. Answers what went into the
-- debt.
local function arrive(a, g, amount)
  local paid = g.only and 0 or math.min(a.debt, amount)
  a.debt = a.debt - paid
  only.add(a, g, amount - paid)
  g.remaining = g.remaining + amount - paid
  place(a, g)
  change_account(a)
  return paid
end
