-- Puts a stored answer back, so that a key used before a rebuild is not applied again.
-- ARGV    field of the recent hash, text
-- Answers ok
-- Writes  recent
function operations.recall(i)
  recent_writes[ARGV[i]] = ARGV[i + 1]
  return 'ok'
end
