-- Tells whose an API key is and what it may do, or that there is no such key now.
-- ARGV    hash (SHA-256 of its text, in hex)
-- Answers ok user_id ("-" = an operator's) key_id scopes expires_at_ms models ("-" = all) | invalid_key
function operations.identify(i)
  local key_id = 'key_' .. sub(ARGV[i], 1, 20)
  local text = api_keys.writes[key_id] or redis.call('HGET', api_keys.ALL, key_id) or ''
  local own, user, scopes, expires, models = match(text, '^%d+ (%x+) (%S+) (%S+) (%d+) (%S+)$')
  if own ~= ARGV[i] or expires + 0 <= now then return '0 invalid_key' end
  return format('ok %s %s %s %s %s', user, key_id, scopes, expires, models)
end
