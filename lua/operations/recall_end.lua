-- Puts back how a reservation ended, so that it answers as before a rebuild.
-- ARGV    reservation_id, user_id, state (committed | released | expired), amount, charged, requested, ended_at_ms, answer
-- Answers ok
-- Writes  recent
function operations.recall_end(i)
  local hold = { id = ARGV[i], user = ARGV[i + 1], amount = ARGV[i + 3] + 0 }
  remember_end(hold, ARGV[i + 2], ARGV[i + 4] + 0, ARGV[i + 5] + 0, ARGV[i + 6] + 0, ARGV[i + 7])
  return 'ok'
end
