-- What a usage costs by a line of rates, exactly: its parts, and the one rounding of a price (state/price.lua).

local prices = {
  known = {}, -- "version@card names" -> a line, read
  MILLION = 1000000,
  EXACT = 9007199254740992, -- 2^53: below it a product of whole numbers is exact
  NONE = {},
  LINE = '^(%S) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$',
  PARENTS = {
    cache_read = 'input', cache_write = 'input', audio_input = 'input', reasoning = 'output', audio_output = 'output',
  },
}

-- quantity * rate / 10^6, in whole units and millionths of one. Both are split, so that each product is exact; what is more
-- than AMOUNT_MAX may be inexact and is more all the same.
function prices.product(quantity, rate)
  local MILLION = prices.MILLION
  local product = quantity * rate
  if product < prices.EXACT then
    local under = product % MILLION
    return (product - under) / MILLION, under
  end
  local q0, r0 = quantity % MILLION, rate % MILLION
  local q1, r1 = (quantity - q0) / MILLION, (rate - r0) / MILLION
  local low = q0 * r0
  local part = low % MILLION
  return q1 * r1 * MILLION + q1 * r0 + q0 * r1 + (low - part) / MILLION, part
end

-- Whole units and millionths times millionths, rounded up: the only rounding of a price.
function prices.times_rounded_up(whole, part, multiplier)
  local MILLION = prices.MILLION
  if multiplier == MILLION then return part > 0 and whole + 1 or whole end
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
  local asked, is_priced = match(usage, ' max_output=(%d+)'), own.output
  if asked and is_priced then
    if string.find(usage, ' output=', 1, true) then usage = gsub(usage, ' output=%d+', '') end
    return usage .. ' output=' .. asked
  end
  if match(usage, ' output=') or not is_priced then return usage end
  return max_output ~= '0' and usage .. ' output=' .. max_output or nil
end

-- Rates by dimension, and how the text of a price names each behind its quantity.
function prices.rates_in(text)
  local found, told = {}, {}
  for dimension, rate in gmatch(text, ',([a-z_]+)=(%d+)') do found[dimension], told[dimension] = rate + 0, '=' .. rate end
  return found, told
end

-- The line of a model, read: once a call. Nil and the refusal where there is none.
function prices.line_of(basis, names)
  local key = (basis.version or '') .. '@' .. basis.card .. '*' .. basis.multiplier .. ' ' .. names
  local known = prices.known[key]
  if known then return known end
  local text, model = rates.line_of(basis, names)
  if not text then return nil, model end
  local free, per_request, minimum, max_output, over, own, above = match(text, prices.LINE)
  known = {
    model = model, is_free = free == 'f', per_request = per_request, minimum = minimum + 0, max_output = max_output,
    over = over + 0, multiplier = basis.multiplier + 0,
    begins = basis.card .. ',' .. basis.version .. ',' .. model .. ',' .. basis.multiplier .. ',',
  }
  known.own, known.told = prices.rates_in(own)
  known.above, known.told_above = prices.rates_in(above)
  prices.known[key] = known
  return known
end

-- What each dimension costs: the sum, in whole units and millionths, and the parts of the price's text; nil and the refusal.
function prices.costs(usage, line, is_above)
  local whole, part, parts, own, told = 0, 0, '', line.own, line.told
  local above, told_above = is_above and line.above or prices.NONE, line.told_above
  for dimension, quantity in gmatch(usage, ' ([a-z_]+)=(%d+)') do
    if dimension ~= 'max_output' then
      local by, mark = dimension, ''
      if not own[by] and not above[by] and not line.is_free then by, mark = prices.PARENTS[dimension] or by, '!' end
      local rate, at_rate = above[by], told_above[by]
      if not rate then rate, at_rate = own[by], told[by] end
      if line.is_free then rate, at_rate = 0, '=0' end
      if not rate then return nil, format('0 unpriced %s', dimension) end
      local units, millionths = prices.product(quantity + 0, rate)
      whole, part = whole + units, part + millionths
      parts = parts .. ',' .. dimension .. '=' .. quantity .. at_rate .. mark
    end
  end
  local under = part % prices.MILLION
  return whole + (part - under) / prices.MILLION, under, parts
end
