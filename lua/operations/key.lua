-- Takes over what a user's API key may do, and books that it changed. Older news than what is there changes nothing, and
-- nothing brings back a key that was revoked.
-- ARGV    user_id, key_id, change (issue | change | rotate | revoke), number (counts up with each change of the key),
--         terms (as state/api_keys.lua has them, "" = it is revoked)
-- Answers ok user_id key_id | too_many; then the balances
-- Writes  accounts, order, keys, outbox (key)
function operations.key(i)
  local user, key_id, change, number, terms = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] + 0, ARGV[i + 4]
  local a = figures_of(account_of(user))
  if api_keys.is_news(key_id, number, terms) then
    if not admit(a) then return '0 too_many' .. balances(a) end
    api_keys.take_over(key_id, number, terms)
    change_account(a)
    record(a, 'key', 0, {}, now, format('"key_id":"%s","change":"%s"', key_id, change), current_key, current_extra)
  end
  return format('ok %s %s', user, key_id) .. balances(a)
end
