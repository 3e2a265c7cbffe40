-- Prices: what a usage costs by a line of rates (state/rates.lua), rounded once.
--
-- price  "card,version,model,multiplier,amount,per_request", then ",dimension=quantity=rate" for each, "!" behind one that
--        costs as its parent; a hold keeps that of its reserve (state/hold.lua), a row has that of what it charges. A hold whose
--        model nobody knows yet has "-" for it: its amount is the caller's, and its card, version and multiplier price the commit
-- usage  "model" (names of it with commas between, the first that the card has counts; "-" at the end: that of the hold), then
--        " dimension=quantity" for each, max_output among them

-- The model that a name is an alias of in the version that prices; every other name means itself.
function rates.model_of(basis, name)
  local field = basis.card .. '@' .. (basis.version or '') .. '='
  rates.look_up({ field })
  local _, cut = string.find(rates.read[field] or '', ' ' .. name .. ',', 1, true)
  return cut and match(rates.read[field], '^%S+', cut + 1) or name
end

-- Whether a model is one of those, by its own name or another one.
function rates.allows(basis, model, models)
  if string.find(',' .. models .. ',', ',' .. model .. ',', 1, true) then return true end
  local meant = rates.model_of(basis, model)
  for one in gmatch(models, '[^,]+') do
    if rates.model_of(basis, one) == meant then return true end
  end
  return false
end

-- The amount of a usage and the text of its price; nil and the refusal. `estimates`: what is to be held for it; `models`: those
-- that it may be of, nil: any.
function prices.of(basis, usage, estimates, models)
  local names = match(usage, '^%S+')
  if basis.model and (names == '-' or sub(names, -2) == ',-') then names = sub(names, 1, -2) .. basis.model end
  local line, refusal = prices.line_of(basis, names)
  local named = models and (line and line.model or match(names, '^[^,]+'))
  if named and not rates.allows(basis, named, models) then return nil, '0 model_not_allowed ' .. named end
  if not line then return nil, refusal end
  if estimates then
    usage = prices.with_most_output(usage, line.max_output, line.own)
    if not usage then return nil, '0 unbounded' end
  end
  local is_above = line.over > 0 and prices.input_of(usage) > line.over
  local whole, part, parts = prices.costs(usage, line, is_above)
  if not whole then return nil, part end
  whole = whole + line.per_request
  if whole < line.minimum then whole, part = line.minimum, 0 end
  local amount = prices.times_rounded_up(whole, part, line.multiplier)
  if whole > AMOUNT_MAX or whole == AMOUNT_MAX and part > 0 or amount > AMOUNT_MAX then return nil, '0 uncountable' end
  return amount, line.begins .. format('%d', amount) .. ',' .. line.per_request .. parts
end

-- What is to be held: as `prices.of`. Where the caller knows an amount (else ""), it is held without a price for who has no
-- card, and by the card's version for a usage that names no model while there is no line for every other one.
function prices.to_hold(basis, usage, amount, models)
  local held, text = prices.of(basis, usage, true, models)
  if held or amount == '' or sub(text, 1, 15) ~= '0 unknown_model' then return held, text end
  if rates.is_without_card(basis) then return amount + 0 end
  if not basis.version or text ~= '0 unknown_model -' then return nil, text end
  return amount + 0, format('%s,%s,-,%s,%s,0', basis.card, basis.version, basis.multiplier, amount)
end

-- A price goes into the row of what is being run.
function prices.carry(text)
  current_extra = join('"price":"' .. text .. '"', current_extra)
end

-- An answer with the price behind it, also where a repeated call finds it.
function prices.behind(answer, text, field)
  if sub(answer, 1, 3) ~= 'ok ' then return answer end
  if recent_writes[field] then recent_writes[field] = recent_writes[field] .. ' $' .. text end
  return answer .. ' $' .. text
end
