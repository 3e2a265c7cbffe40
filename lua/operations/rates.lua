-- Takes over lines of rates (state/price.lua), before a version that has them is activated.
-- ARGV    fields (how many); then each of the fields: field, text
-- Answers ok
-- Writes  rates
function operations.rates(i)
  for n = i + 1, i + 2 * ARGV[i], 2 do rate_writes[ARGV[n]] = ARGV[n + 1] end
  return 'ok'
end
