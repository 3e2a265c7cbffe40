-- Admission: whether an account may begin what is asked for, by its credits and by all the rules that it is under, and the
-- refusal that names each of them. All refusals come before anything is changed.

local admission = {
  VIOLATION = '%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s', -- as meter/engine/rules.py has it
  DUE_PAGE = '100',
  is_settled_elsewhere = false, -- whether this call has settled what was due for others
}

function admission.violations_of(broken)
  local function shown(value) return value and format('%d', value) or '-' end
  local order, texts = {}, {}
  for n, v in ipairs(broken) do order[n], v.place = v, n end
  table.sort(order, function(x, y)
    if x.class ~= y.class then return x.class < y.class end
    if x.room ~= y.room then return x.room < y.room end
    return x.place < y.place
  end)
  for n, v in ipairs(order) do
    texts[n] = format(admission.VIOLATION, v.rule, v.of, v.id or '-', v.window or '-', v.unit or '-', shown(v.limit),
      shown(v.used), shown(v.reserved), shown(v.required),
      shown(v.resets and v.resets < NEVER and v.resets), shown(v.retry_ms), shown(v.per))
  end
  return texts[1] and concat(texts, '|') or '-', order[1]
end

-- Settles what is due for the first accounts of the partition: a hold that has ended weighs on the levels above its account
-- until somebody touches that. Once a call; true where there was something to do.
function admission.settle_due()
  if admission.is_settled_elsewhere then return false end
  admission.is_settled_elsewhere = true
  local users = redis.call('ZRANGEBYSCORE', DUE, '-inf', format('%d', now), 'LIMIT', '0', admission.DUE_PAGE)
  for _, user in ipairs(users) do account_of(user) end
  return users[1] ~= nil
end

-- All that refuses what is asked of an account (state/judging.lua); `short` where its credits do not cover it.
function admission.broken_by(a, ask)
  local broken = {}
  if ask.is_new and a.suspended ~= '-' then broken[1] = { class = 1, room = 0, rule = 'suspended', of = a.user } end
  if ask.short then
    broken[#broken + 1] = {
      class = 2, room = ask.spendable or a.available, rule = 'credits', of = a.user, limit = ask.spendable or a.available,
      required = ask.required,
    }
  end
  if not levels then return broken end
  levels.judge(a.user, ask, broken)
  for _, v in ipairs(broken) do
    if v.class > 1 and v.of ~= a.user and admission.settle_due() then return admission.broken_by(a, ask) end
  end
  return broken
end

-- The word of a refusal: what a caller that tries again would meet last comes first.
function admission.word_of(broken, first)
  if first.class == 1 then return 'suspended' end
  for _, v in ipairs(broken) do if v.rule == 'credits' then return 'insufficient' end end
  return first.class == 2 and 'budget_reached' or 'rate_limited'
end

-- The line that refuses what is asked, or nil.
function admission.refuse(a, ask)
  local broken = admission.broken_by(a, ask)
  if not broken[1] then return nil end
  local texts, first = admission.violations_of(broken)
  local word = admission.word_of(broken, first)
  local told = balances(a, ask.purpose)
  return first.class == 2 and format('0 %s %s %d %s', word, a.user, ask.required, texts) .. told
    or format('0 %s %s', word, texts) .. told
end

-- The line that refuses new spending of an account that is suspended, itself or by a level above it, or nil.
function admission.refuse_suspended(a)
  local is_suspended = a.suspended ~= '-'
  for _, level in ipairs(levels and levels.of(a.user) or NOTHING) do
    is_suspended = is_suspended or level.suspended or levels.breakers.suspends(level)
  end
  return is_suspended and admission.refuse(a, { is_new = true, amount = 0, required = 0 }) or nil
end

-- How much of an amount the budgets allow, and the id of the one that cuts it, nil where none does.
function admission.allowed(a, ask)
  if not levels then return ask.amount end
  local room, id, of = levels.room(a.user, ask)
  if room and room < ask.amount and of ~= a.user and admission.settle_due() then room, id = levels.room(a.user, ask) end
  if not room or room >= ask.amount then return ask.amount end
  return math.max(0, room), id
end

-- The same, and what stands behind the answer of an operation that is cut: " !" and the id of that budget.
function admission.within_rules(a, amount)
  local most, id = admission.allowed(a, { amount = amount })
  return most, id and ' !' .. id or ''
end

-- And the member of its entry.
function admission.limited_member(limited)
  return limited == '' and '' or '"limited_by":"' .. sub(limited, 3) .. '"'
end

-- What would become of what is asked: ok, or the word of the refusal, and what refuses it.
function admission.would_be(a, ask)
  local broken = admission.broken_by(a, ask)
  local texts, first = admission.violations_of(broken)
  return first and admission.word_of(broken, first) or 'ok', texts
end
