-- Prices: what a usage costs by a line of rates (state/rates.lua), rounded once.
--
-- price  "card,version,model,multiplier,amount,per_request", then ",dimension=quantity=rate" for each, "!" behind one that
--        costs as its parent; a hold keeps that of its reserve (state/hold.lua), a row has that of what it charges. A hold whose
--        model nobody knows yet has "-" for it: its amount is the caller's, and its card, version and multiplier price the commit
-- usage  "model" (names of it with commas between, the first that the card has counts; "-" at the end: that of the hold), then
--        " dimension=quantity" for each, max_output among them

local prices = {
  MILLION = 1000000,
  LINE = '^(%S) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$',
  PARENTS = {
    cache_read = 'input', cache_write = 'input', audio_input = 'input', reasoning = 'output', audio_output = 'output',
  },
}

-- quantity * rate / 10^6, in whole units and millionths of one. Both are split, so that each product is exact; what is more
-- than AMOUNT_MAX may be inexact and is more all the same.
function prices.product(quantity, rate)
  local MILLION = prices.MILLION
  local q0, r0 = quantity % MILLION, rate % MILLION
  local q1, r1 = (quantity - q0) / MILLION, (rate - r0) / MILLION
  local low = q0 * r0
  local part = low % MILLION
  return q1 * r1 * MILLION + q1 * r0 + q0 * r1 + (low - part) / MILLION, part
end

-- Whole units and millionths times millionths, rounded up: the only rounding of a price.
function prices.times_rounded_up(whole, part, multiplier)
  local MILLION = prices.MILLION
  local w0, m0 = whole % MILLION, multiplier % MILLION
  local w1, m1 = (whole - w0) / MILLION, (multiplier - m0) / MILLION
  local lowest = part * m0
  local rest = lowest % MILLION
  local low = w0 * m0 + part * m1 + (lowest - rest) / MILLION
  local under = low % MILLION
  local amount = w1 * m1 * MILLION + w1 * m0 + w0 * m1 + (low - under) / MILLION
  return (under > 0 or rest > 0) and amount + 1 or amount
end

-- All that goes in, cached or not.
function prices.input_of(usage)
  local total = 0
  for quantity in gmatch(usage, ' input=(%d+)') do total = total + quantity end
  for quantity in gmatch(usage, ' cache_read=(%d+)') do total = total + quantity end
  for quantity in gmatch(usage, ' cache_write=(%d+)') do total = total + quantity end
  return total
end

-- A usage with the output that it may come to: what the caller bounds it by, else what it says, else the line's bound.
-- Nil where nothing bounds what has a price. Output that has none is no part of it: nobody embeds to more than vectors.
function prices.with_most_output(usage, max_output, own)
  local asked, is_priced = match(usage, ' max_output=(%d+)'), match(own, ',output=')
  if asked and is_priced then return gsub(usage, ' output=%d+', '') .. ' output=' .. asked end
  if match(usage, ' output=') or not is_priced then return usage end
  return max_output ~= '0' and usage .. ' output=' .. max_output or nil
end

function prices.rate_of(dimension, own, above)
  local key = ',' .. dimension .. '=(%d+)'
  return above and match(above, key) or match(own, key)
end

-- What each dimension costs: the sum, in whole units and millionths, and the parts of the price's text; nil and the refusal.
function prices.costs(usage, is_free, own, above)
  local whole, part, parts = 0, 0, {}
  for dimension, quantity in gmatch(usage, ' ([a-z_]+)=(%d+)') do
    if dimension ~= 'max_output' then
      local rate, mark = is_free and '0' or prices.rate_of(dimension, own, above), ''
      local parent = not rate and prices.PARENTS[dimension]
      if parent then rate, mark = prices.rate_of(parent, own, above), '!' end
      if not rate then return nil, format('0 unpriced %s', dimension) end
      local units, millionths = prices.product(quantity + 0, rate + 0)
      whole, part = whole + units, part + millionths
      parts[#parts + 1] = format(',%s=%s=%s%s', dimension, quantity, rate, mark)
    end
  end
  local under = part % prices.MILLION
  return whole + (part - under) / prices.MILLION, under, concat(parts)
end

-- The amount of a usage and the text of its price; nil and the refusal. `estimates`: what is to be held for it; `models`: those
-- that it may be of, nil: any.
function prices.of(basis, usage, estimates, models)
  local names = match(usage, '^%S+')
  if basis.model and (names == '-' or sub(names, -2) == ',-') then names = sub(names, 1, -2) .. basis.model end
  local line, model = rates.line_of(basis, names)
  local named = line and model or match(names, '^[^,]+')
  if models and not rates.allows(basis, named, models) then return nil, '0 model_not_allowed ' .. named end
  if not line then return nil, model end
  local free, per_request, minimum, max_output, over, own, above = match(line, prices.LINE)
  local is_free = free == 'f'
  if estimates then
    usage = prices.with_most_output(usage, max_output, own)
    if not usage then return nil, '0 unbounded' end
  end
  local is_above = over ~= '0' and prices.input_of(usage) > over + 0
  local whole, part, parts = prices.costs(usage, is_free, own, is_above and above)
  if not whole then return nil, part end
  whole = whole + per_request
  if whole < minimum + 0 then whole, part = minimum + 0, 0 end
  local amount = prices.times_rounded_up(whole, part, basis.multiplier + 0)
  if whole > AMOUNT_MAX or whole == AMOUNT_MAX and part > 0 or amount > AMOUNT_MAX then return nil, '0 uncountable' end
  return amount, format('%s,%s,%s,%s,%d,%s', basis.card, basis.version, model, basis.multiplier, amount, per_request) .. parts
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
