-- Puts a stored answer back, so that a key used before a rebuild is not applied again; or a user's metadata.
-- ARGV    field of the recent hash, or "p user_id"; text
-- Answers ok
-- Writes  recent, profiles
function operations.recall(i)
  local user = match(ARGV[i], '^p (%S+)$')
  if user then
    profile_writes[user] = ARGV[i + 1]
  else
    recent_writes[ARGV[i]] = ARGV[i + 1]
  end
  return 'ok'
end
