-- What rate cards and accounts say of prices, as RATES keeps it (docs/rate-cards.md).
--
-- "u user_id"           what an account says: "card multiplier", "-" for what it does not say; then what plans say, by group:
--                       " group,version,card,multiplier,until": the version of the subscription, when it ends (0: it does not)
-- "a card"              its activations: "number", then "version from" for each, by time; the last that began holds
-- "card@version"        the models that the version has, with blanks around each
-- "card@version="       which names are aliases, where some are: " alias,model alias,model "
-- "card@version model"  a line of rates; that of "*" is for every other model: "free per_request minimum max_output over
--                       rates above". f where it costs nothing, else -; 0 where there is no max_output and no over; rates are
--                       ",dimension=units per million,..." or "-", those above hold for more input than `over`

local rates = {
  read = {}, -- field of RATES -> text, or false where there is none
  bases = {}, -- "card multiplier" -> what prices by them now; and the head of a price -> what priced by that
}

-- Reads fields that this call has not read yet.
function rates.look_up(names)
  local wanted
  for n = 1, #names do
    if rates.read[names[n]] == nil then
      wanted = wanted or {}
      wanted[#wanted + 1] = names[n]
    end
  end
  if not wanted then return end
  for n, text in ipairs(redis.call('HMGET', RATES, unpack(wanted))) do rates.read[wanted[n]] = text end
end

-- The fields of a path's levels, the root's first.
function rates.fields_of(user)
  local names = paths.levels_of(user)
  for n, name in ipairs(names) do names[n] = 'u ' .. name end
  return names
end

-- What the plans of an account say: of several, the first group by name that says a card, and likewise a multiplier.
function rates.of_plans(words)
  local card, multiplier
  for own, times, till in gmatch(words, '[^,%s]+,%d+,([^,]+),([^,]+),(%d+)') do
    if till == '0' or now < till + 0 then
      if not card and own ~= '-' then card = own end
      if not multiplier and times ~= '-' then multiplier = times end
    end
  end
  return card, multiplier
end

-- What prices a user's usage now: card and multiplier of the nearest level, else plan, that says one, and the active version.
function rates.of(user)
  local card, multiplier, plan_card, plan_multiplier
  local names = string.find(user, '/', 1, true) and rates.fields_of(user) or { 'u ' .. user }
  for n = 1, #names do
    if rates.read[names[n]] == nil then rates.look_up(names) end
    local terms = rates.read[names[n]]
    if terms then
      local own, times, of_plans = match(terms, '^(%S+) (%S+)(.*)$')
      if own and own ~= '-' then card = own end
      if times and times ~= '-' then multiplier = times end
      if of_plans and of_plans ~= '' then
        own, times = rates.of_plans(of_plans)
        plan_card, plan_multiplier = own or plan_card, times or plan_multiplier
      end
    end
  end
  card, multiplier = card or plan_card or 'default', multiplier or plan_multiplier or '1000000'
  local key = card .. ' ' .. multiplier
  local basis = rates.bases[key]
  if not basis then
    rates.look_up({ 'a ' .. card })
    basis = { card = card, multiplier = multiplier }
    for number, from in gmatch(rates.read['a ' .. card] or '', ' (%d+) (%d+)') do
      if from + 0 <= now then basis.version = number end
    end
    rates.bases[key] = basis
  end
  return basis
end

-- What priced a hold, or what it ended with.
function rates.of_hold(hold)
  local head = match(hold.price, '^[^,]+,%d+,[^,]+,%d+')
  local basis = rates.bases[head]
  if not basis then
    basis = {}
    basis.card, basis.version, basis.model, basis.multiplier = match(head, '^([^,]+),(%d+),([^,]+),(%d+)$')
    rates.bases[head] = basis
  end
  return basis
end

-- Whether nobody made a card for a user, who names none either.
function rates.is_without_card(basis)
  return not basis.version and basis.card == 'default'
end

-- The line of a model by the first of its names that has one ("-": none is known), and that name; nil and the refusal. A line
-- that a version has and that is not there is nobody else's price.
function rates.line_of(basis, names)
  local first = match(names, '^[^,]+')
  if not basis.version then return nil, format('0 unknown_model %s', first) end
  local version, fields = basis.card .. '@' .. basis.version, {}
  for model in gmatch(names, '[^,]+') do fields[#fields + 1] = version .. ' ' .. model end
  rates.look_up(fields)
  for _, own in ipairs(fields) do
    if rates.read[own] then return rates.read[own], sub(own, #version + 2) end
  end
  local other = version .. ' *'
  rates.look_up({ version, other })
  local models = rates.read[version]
  if not models then return nil, '0 rates_missing' end
  for model in gmatch(names .. ',*', '[^,]+') do
    if string.find(models, ' ' .. model .. ' ', 1, true) and not rates.read[version .. ' ' .. model] then
      return nil, '0 rates_missing'
    end
  end
  if rates.read[other] then return rates.read[other], first == '-' and '*' or first end
  return nil, format('0 unknown_model %s', first)
end
