-- Takes over what API keys may do, and books nothing: an operator's, which lie in every partition, and all of them in a rebuild.
-- ARGV    keys (how many); then each of the keys: key_id, number, terms (as of key.lua)
-- Answers ok
-- Writes  keys
function operations.keys(i)
  for n = i + 1, i + 3 * ARGV[i], 3 do
    local key_id, number, terms = ARGV[n], ARGV[n + 1] + 0, ARGV[n + 2]
    if api_keys.is_news(key_id, number, terms) then api_keys.take_over(key_id, number, terms) end
  end
  return 'ok'
end
