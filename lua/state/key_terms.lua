-- What API keys may do: changes of it, and what holds keep of the key that they were asked for by (state/api_keys.lua).

-- What the row of a charge says of the key of its hold.
function api_keys.told(hold)
  return hold.key and format(',"key_id":"%s"', match(hold.key, '^[^,]+')) or ''
end

-- The models that a hold may be charged for, with commas between; nil: all.
function api_keys.models_of(hold)
  return hold.key and match(hold.key, ',(.+)$')
end

-- Whether terms of a key, "" of one that is revoked, are newer than what is there.
function api_keys.is_news(key_id, number, terms)
  local known = api_keys.writes[key_id] or redis.call('HGET', api_keys.ALL, key_id) or '0'
  return known ~= 'revoked' and (terms == '' or number > match(known, '^%d+') + 0)
end

function api_keys.take_over(key_id, number, terms)
  api_keys.writes[key_id] = terms == '' and 'revoked' or format('%d %s', number, terms)
end
