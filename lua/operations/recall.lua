-- Puts a stored answer back, so that a key used before a rebuild is not applied again.
-- ARGV    what (key | reservation: an id that its caller chose), id, fingerprint ("-" = refuses every body), answer
-- Answers ok
-- Writes  recent
function operations.recall(i)
  remember_answer(ARGV[i] == 'key' and 'k ' or 'c ', ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  return 'ok'
end
