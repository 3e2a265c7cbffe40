-- Homeless credits: what a refund gives back where the grant that it came from is not there any more (operations/refund.lua).

-- Credits without a grant to return to: its debt has been paid since, or Redis has forgotten it. A restricted one is made anew.
local function refund_to_new_grant(a, amount, tags, number)
  local id = format(number == 1 and 'refund-%s-%d' or 'refund-%s-%d-%d', partition, seq + 1, number)
  local g = {
    id = id, amount = amount, remaining = 0, reserved = 0, priority = 10, effective = now, expires = NEVER,
    created = now, shelved = 0, class = 'N', state = '-', source = 'refund', at_end = '',
    only = tags ~= '' and tags or nil,
  }
  a.grants[id], a.grant_count = g, figures_of(a).grant_count + 1
  arrive(a, g, amount)
  return g
end

-- Credits without a grant, by what they may be spent on.
local function add_homeless(homeless, tags, amount)
  if amount == 0 then return end
  for _, of in ipairs(homeless) do
    if of.tags == tags then
      of.amount = of.amount + amount
      return
    end
  end
  homeless[#homeless + 1] = { tags = tags, amount = amount }
end

-- The restricted grants that a refund makes, as a member of its row.
local function told_of_made(one)
  local parts = {}
  for n = 1, #one.draws, 2 do
    local g = one.draws[n]
    if g.only and g.source == 'refund' and g.created == now then parts[#parts + 1] = format('"%s":"%s"', g.id, g.only) end
  end
  return parts[1] and ',"made_for":{' .. concat(parts, ',') .. '}' or ''
end
