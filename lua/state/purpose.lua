-- Purposes: what an operation is for, and what an account can spend on it.
--
-- An operation is for the tags that its caller gives, first among the members of its row, and for the model that prices it. A
-- purpose has the first as `tags` and the price as `price`; they are only put together where there is a restricted grant.

only.GIVEN = '\n"tags":"([^"]*)"'

-- What an operation is for; `i` is the place of its first own argument.
function only.purpose(i)
  return { tags = match(ARGV[i - 1], only.GIVEN) or '', price = match(current_extra, '^"price":"([^"]*)"') }
end

-- What a hold is for, which it keeps.
function only.purpose_of(hold)
  return { tags = hold.tags or '', price = hold.price }
end

-- The tags of the model by which a price was made, by the name that was asked for and, of another name, its own.
function only.model_tags(price)
  local card, version, model = match(price or '', '^([^,]+),([^,]+),([^,]+),')
  if not model or model == '-' then return '' end
  local aliases = redis.call('HGET', RATES, card .. '@' .. version .. '=') or ''
  local _, cut = string.find(aliases, ' ' .. model .. ',', 1, true)
  local meant = cut and match(aliases, '^%S+', cut + 1)
  return ',model:' .. model .. (meant and ',model:' .. meant or '')
end

-- Whether a grant of those tags may be spent on a purpose: one of them names it, or begins as it does and ends with a "*".
function only.fits(tags, purpose)
  purpose.all = purpose.all or ',' .. purpose.tags .. only.model_tags(purpose.price) .. ','
  for tag in gmatch(tags, '[^,]+') do
    local sought = sub(tag, -1) == '*' and ',' .. sub(tag, 1, -2) or ',' .. tag .. ','
    if string.find(purpose.all, sought, 1, true) then return true end
  end
  return false
end

-- What an account can spend on a purpose (nil: on anything). What is forfeited is about to be booked as expired, and does not
-- count.
function only.usable(a, purpose)
  local sum = a.available - (a.forfeiting or 0)
  for _, r in ipairs(purpose and a.restrictions or NOTHING) do
    if only.fits(r.only, purpose) then sum = sum + r.available - r.forfeiting end
  end
  return sum
end

-- Adds to what is forfeited of a grant, and of all restricted ones.
function only.forfeit(a, g, amount)
  if not g.only then
    a.forfeiting = (a.forfeiting or 0) + amount
  elseif amount ~= 0 then
    local r = only.of(a, g.only)
    r.forfeiting, a.forfeiting_only = r.forfeiting + amount, (a.forfeiting_only or 0) + amount
  end
end

-- What stands behind the balances of an account with restricted grants: " ~restricted", then "," and what can be spent on the
-- purpose, where there is one.
function only.told(a, purpose)
  if not a.restrictions[1] then return '' end
  local told = format(' ~%d', only.free(a) - (a.forfeiting_only or 0))
  return purpose and told .. format(',%d', only.usable(a, purpose)) or told
end
